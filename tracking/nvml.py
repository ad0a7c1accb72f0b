"""One NVIDIA GPU's load and memory, asked of the driver's own library (NVML); no wait for the GPU's work.

Source: NVML API reference, nvmlDeviceGetUtilizationRates and nvmlDeviceGetMemoryInfo.
"""

import ctypes
from ctypes import Structure, byref, c_char_p, c_uint, c_ulonglong, c_void_p

_LIBRARY = "libnvidia-ml.so.1"


class NvmlError(Exception):
    """The library is missing, or refuses."""


class _Utilization(Structure):
    _fields_ = (("gpu", c_uint), ("memory", c_uint))


class _Memory(Structure):
    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class Gpu:
    """The GPU with the given UUID (`GPU-...`, or `MIG-...` of a slice).

    Raises:
        NvmlError: there is no such GPU, or no driver.
    """

    def __init__(self, uuid: str) -> None:
        try:
            self._nvml = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise NvmlError(f"{_LIBRARY}: {error}") from error
        self._call("nvmlInit_v2")
        self._handle = c_void_p()
        self._call("nvmlDeviceGetHandleByUUID", c_char_p(uuid.encode()), byref(self._handle))

    def utilization_percent(self) -> float:
        """Return the share of the last moment in which a kernel ran, in percent.

        Raises:
            NvmlError: not known, as of slices of a GPU.
        """
        rates = _Utilization()
        self._call("nvmlDeviceGetUtilizationRates", self._handle, byref(rates))
        return float(rates.gpu)

    def memory_used_mb(self) -> float:
        """Return the memory in use by all processes, in MB (10^6 bytes).

        Raises:
            NvmlError: not known.
        """
        memory = _Memory()
        self._call("nvmlDeviceGetMemoryInfo", self._handle, byref(memory))
        return float(memory.used) / 1e6

    def _call(self, name: str, *arguments: object) -> None:
        try:
            code = getattr(self._nvml, name)(*arguments)
        except AttributeError as error:
            raise NvmlError(f"{_LIBRARY} lacks {name}") from error
        if code:
            raise NvmlError(f"{name} answers {code}")
