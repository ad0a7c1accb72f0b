"""What a training costs its machine: CPU, memory and GPU, sampled in a thread that never waits for the GPU.

Keys, under `system/`, which MLflow shows on a page of their own:
- `process_cpu_percent`: mean, 100 is one core busy; `process_memory_mb`: largest resident size;
- `cpu_percent`, `memory_percent`: of the whole machine, means;
- with a GPU `gpu_percent`: mean share of time in which a kernel ran; `gpu_memory_mb`: largest, of all processes;
  `gpu_allocated_mb`: largest, of torch's tensors since the process began.
MB are 10^6 bytes. What a system does not tell is left out.
"""

import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tracking.nvml import Gpu, NvmlError

_PREFIX = "system/"
_LARGEST = ("process_memory_mb", "gpu_memory_mb", "gpu_allocated_mb")  # the others are means


class SystemMetrics:
    """Samples between `start` and `stop` of a `with` block.

    Args:
        device: torch's name of the device trained on.
        interval_s: s between two samples.
    """

    def __init__(self, device: str, interval_s: float = 2.0) -> None:
        self._interval_s = interval_s
        self._torch_device = device if device.startswith("cuda") else None
        self._gpu = _gpu(self._torch_device)
        self._lock = threading.Lock()
        self._samples: dict[str, list[float]] = defaultdict(list)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="system-metrics", daemon=True)
        self._mark()

    def since_last(self) -> dict[str, float]:
        """Return what was measured since the last call, or the start; one sample at least."""
        self._sample()
        with self._lock:
            samples, self._samples = self._samples, defaultdict(list)
        metrics = {
            name: max(values) if name in _LARGEST else sum(values) / len(values) for name, values in samples.items()
        }
        return {f"{_PREFIX}{name}": value for name, value in sorted((metrics | self._loads()).items())}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stopped.wait(self._interval_s):
            self._sample()

    def _sample(self) -> None:
        found = dict(self._levels())
        with self._lock:
            for name, value in found.items():
                self._samples[name].append(value)

    def _levels(self) -> Iterator[tuple[str, float]]:
        if (resident := _resident_mb()) is not None:
            yield "process_memory_mb", resident
        if (used := _memory_percent()) is not None:
            yield "memory_percent", used
        if self._torch_device is not None:
            import torch

            yield "gpu_allocated_mb", torch.cuda.max_memory_allocated(self._torch_device) / 1e6
        if self._gpu is not None:
            measures = {
                "gpu_percent": self._gpu.utilization_percent,
                "gpu_memory_mb": self._gpu.memory_used_mb,
            }
            for name, measure in measures.items():
                try:
                    yield name, measure()
                except NvmlError:
                    continue  # slices of a GPU do not say

    def _mark(self) -> None:
        self._began, self._cpu_s, self._machine = time.monotonic(), time.process_time(), _machine_ticks()

    def _loads(self) -> dict[str, float]:
        """Return the mean loads since the last call, from counters that the kernel keeps."""
        before, cpu_s, machine = self._began, self._cpu_s, self._machine
        self._mark()
        loads = {"process_cpu_percent": 100 * (self._cpu_s - cpu_s) / max(self._began - before, 1e-9)}
        if machine is not None and self._machine is not None:
            busy, whole = (now - then for now, then in zip(self._machine, machine, strict=True))
            loads["cpu_percent"] = 100 * busy / max(whole, 1)
        return loads


def _gpu(device: str | None) -> Gpu | None:
    if device is None:
        return None
    import torch

    properties: Any = torch.cuda.get_device_properties(device)
    uuid = str(getattr(properties, "uuid", ""))  # torch gives it without the driver's prefix
    try:
        return Gpu(uuid if uuid.startswith(("GPU-", "MIG-")) else f"GPU-{uuid}")
    except NvmlError:
        return None


def _resident_mb() -> float | None:
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _memory_percent() -> float | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 100 * (1 - sizes["MemAvailable"] / sizes["MemTotal"])


def _machine_ticks() -> tuple[int, int] | None:
    """Return (busy, whole) clock ticks of all cores since boot."""
    try:
        first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    except OSError:
        return None
    ticks = [int(word) for word in first.split()[1:9]]  # user nice system idle iowait irq softirq steal
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)
