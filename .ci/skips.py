"""Print every skipped test with its reason, and fail on a reason that this machine does not explain."""

import os
import shutil
import socket
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

DATA = Path(os.environ.get("VAE_SWEEP_TEST_DATA", "../shared/data"))
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/local/sbin", "/usr/sbin", "/sbin"])
SLURM = ("slurmctld", "slurmd", "munged", "sinfo", "squeue", "scancel")
LOOPBACK = "127.0.0.1"


def _host_address() -> str:
    try:
        return socket.gethostbyname(socket.gethostname())
    except OSError:
        return ""


def _may_unshare() -> bool:
    return subprocess.run(["unshare", "--mount", "--uts", "true"], capture_output=True, check=False).returncode == 0


# start of a skip's reason -> whether it is expected on this machine
EXPECTED = {
    "no test data": not DATA.is_dir(),
    "no Fashion-MNIST at": not DATA.is_dir(),
    "no layout trees at": not DATA.is_dir(),
    "no SqueezeNet weights under": not DATA.is_dir(),
    "has a CUDA device": torch.cuda.is_available(),
    "needs a CUDA device": not torch.cuda.is_available(),
    "needs chromium": shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    "needs root": os.geteuid() != 0,
    "needs slurmctld, slurmd and munged": not all(shutil.which(name, path=SBIN) for name in SLURM),
    "needs a host name on loopback": _host_address() != LOOPBACK and not _may_unshare(),
    "needs to unshare namespaces": not _may_unshare(),
}


def main(report: Path) -> int:
    """Return the exit code: 1 where a skip is not expected."""
    unexpected = 0
    tree = ET.parse(report)  # noqa: S314 - pytest has just written it
    for case in tree.getroot().iter("testcase"):
        for skip in case.iter("skipped"):
            reason = skip.get("message", "")
            expected = any(reason.startswith(start) and holds for start, holds in EXPECTED.items())
            unexpected += not expected
            mark = "skipped" if expected else "UNEXPECTED SKIP"
            print(f"{mark}: {case.get('classname')}::{case.get('name')}: {reason}")
    print(f"{unexpected} unexpected skips")
    return int(unexpected > 0)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
