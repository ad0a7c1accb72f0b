import ctypes
import time

import pytest

from tracking import nvml
from tracking.nvml import Gpu, NvmlError
from tracking.system_metrics import SystemMetrics

ON_A_CPU = {
    "system/process_cpu_percent",
    "system/process_memory_mb",
    "system/cpu_percent",
    "system/memory_percent",
}


def test_every_stretch_has_all_keys_however_short_it_is():
    with SystemMetrics("cpu", interval_s=3600) as system:
        for _ in range(2):
            metrics = system.since_last()
            assert set(metrics) == ON_A_CPU
            assert all(value >= 0 for value in metrics.values())
            assert metrics["system/memory_percent"] <= 100


def test_the_load_is_that_of_this_process_since_the_last_look():
    with SystemMetrics("cpu", interval_s=3600) as system:
        system.since_last()
        began, busy = time.monotonic(), time.process_time()
        while time.process_time() - busy < 0.2:
            pass
        share = 100 * (time.process_time() - busy) / (time.monotonic() - began)
        assert system.since_last()["system/process_cpu_percent"] == pytest.approx(share, rel=0.2)
        time.sleep(0.3)
        assert system.since_last()["system/process_cpu_percent"] < 50


def test_memory_is_the_largest_that_a_sample_saw():
    with SystemMetrics("cpu", interval_s=0.01) as system:
        before = system.since_last()["system/process_memory_mb"]
        block = bytearray(200_000_000)
        time.sleep(0.5)
        del block
        assert system.since_last()["system/process_memory_mb"] > before + 150


class FakeNvml:
    """The driver's library as NVML's reference describes it, with one GPU; `refuses` names functions that fail."""

    def __init__(self, *refuses):
        self.refuses = refuses

    def __getattr__(self, name):
        if not name.startswith("nvml"):
            raise AttributeError(name)
        return lambda *arguments: 3 if name in self.refuses else getattr(self, f"_{name}")(*arguments)

    def _nvmlInit_v2(self):  # noqa: N802 - the library's name
        return 0

    def _nvmlDeviceGetHandleByUUID(self, uuid, handle):  # noqa: N802
        handle._obj.value = 7
        return 0 if uuid.value == b"GPU-1" else 6

    def _nvmlDeviceGetUtilizationRates(self, handle, rates):  # noqa: N802
        assert handle.value == 7
        ctypes.memmove(rates, (ctypes.c_uint * 2)(83, 20), 8)
        return 0

    def _nvmlDeviceGetMemoryInfo(self, handle, memory):  # noqa: N802
        ctypes.memmove(memory, (ctypes.c_ulonglong * 3)(80_000_000_000, 30_000_000_000, 50_000_000_000), 24)
        return 0


def test_a_gpu_is_asked_by_its_uuid(monkeypatch):
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda _: FakeNvml())
    gpu = Gpu("GPU-1")
    assert (gpu.utilization_percent(), gpu.memory_used_mb()) == (83.0, 50_000.0)
    with pytest.raises(NvmlError, match="nvmlDeviceGetHandleByUUID answers 6"):
        Gpu("GPU-2")


def test_what_a_slice_of_a_gpu_does_not_say_is_left_out(monkeypatch):
    monkeypatch.setattr(nvml.ctypes, "CDLL", lambda _: FakeNvml("nvmlDeviceGetUtilizationRates"))
    with SystemMetrics("cpu") as system:
        system._gpu = Gpu("GPU-1")
        metrics = system.since_last()
    assert metrics["system/gpu_memory_mb"] == 50_000.0
    assert "system/gpu_percent" not in metrics


def test_without_a_driver_there_is_no_gpu():
    def missing(_):
        raise OSError("no such file")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nvml.ctypes, "CDLL", missing)
        with pytest.raises(NvmlError, match=r"libnvidia-ml.so.1: no such file"):
            Gpu("GPU-1")
