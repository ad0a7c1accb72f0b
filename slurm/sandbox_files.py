"""The files that a sandbox's daemons read: configuration, hosts, munge's key, device nodes."""

import os
import re
import socket
import stat
import subprocess
from pathlib import Path

from slurm.errors import SlurmError
from slurm.sandbox_daemons import program
from slurm.sandbox_settings import LOOPBACK, Settings, host_is_loopback

_NULL_DEVICE = os.makedev(1, 3)
# a node claims CPUs that the machine need not have, and memory for whatever a job asks for, in MB
_OFFER = "CPUs=8 RealMemory=1000000"
# Daemons see a hosts file in which the host name stands for loopback. The user's srun sees the machine's own: where its
# name stands for another address, tasks would not find srun there, so that it has to listen on all.
_ON_LOOPBACK = """
# Listen on the address of the host name rather than on all.
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
"""


def write_files(folder: Path, settings: Settings) -> None:
    """Make everything below `folder` that the daemons expect there.

    Raises:
        SlurmError: this machine refuses device nodes.
        OSError: the folder cannot be written.
    """
    for name in ("state", "log", "run", "dev", *(f"spool/{node}" for node in settings.node_names)):
        (folder / name).mkdir(parents=True, exist_ok=True)
    key = folder / "munge.key"
    if not key.exists():
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
    _make_devices(folder / "dev", settings.gpus)
    (folder / "gres.conf").write_text(_gres_conf(folder, settings.gpus))
    (folder / "cgroup.conf").write_text(_cgroup_conf())
    (folder / "hosts").write_text(f"{LOOPBACK} localhost {socket.gethostname()}\n{Path('/etc/hosts').read_text()}")
    settings_text = _slurm_conf(folder, settings)
    (folder / "daemons.conf").write_text(settings_text + _ON_LOOPBACK)
    (folder / "slurm.conf").write_text(settings_text + (_ON_LOOPBACK if host_is_loopback() else ""))
    temporary = folder / "sandbox.json.tmp"
    temporary.write_text(settings.model_dump_json(indent=2) + "\n")
    temporary.replace(folder / "sandbox.json")


def _make_devices(folder: Path, gpus: int) -> None:
    """Make character devices: Slurm counts other files too, but leaves CUDA_VISIBLE_DEVICES empty for them."""
    for number in range(gpus):
        device = folder / f"nvidia{number}"
        if device.is_char_device():
            continue
        try:
            device.unlink(missing_ok=True)
            os.mknod(device, stat.S_IFCHR | 0o666, _NULL_DEVICE)
        except OSError as error:
            raise SlurmError(
                f"fake GPUs need device nodes, and {device} cannot be made ({error.strerror}); containers need the "
                "capability MKNOD for that; without GPUs: --gpus 0"
            ) from error


def _gres_conf(folder: Path, gpus: int) -> str:
    """Return gres.conf; without detection, which would look for real GPUs."""
    return "AutoDetect=off\n" + (f"Name=gpu File={folder}/dev/nvidia[0-{gpus - 1}]\n" if gpus else "")


def _cgroup_conf() -> str:
    """Return cgroup.conf: nothing here uses cgroups, and slurmd must not look for them, which containers may lack."""
    version = subprocess.run([program("slurmctld"), "-V"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", version)
    old = found is not None and (int(found[1]), int(found[2])) < (23, 2)  # does not know "disabled"
    return "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n" if old else "CgroupPlugin=disabled\n"


def _slurm_conf(folder: Path, settings: Settings) -> str:
    control, *ports = settings.ports
    common = f"NodeHostname=localhost NodeAddr={LOOPBACK} {_OFFER} State=UNKNOWN"
    gres = f" Gres=gpu:{settings.gpus}" if settings.gpus else ""
    nodes = "\n".join(
        f"NodeName={name} Port={port} {common}{gres}" for name, port in zip(settings.node_names, ports, strict=True)
    )
    return f"""\
# Written by `vae-sweep sandbox start`, anew at every start.
ClusterName=sandbox
SlurmctldHost=localhost({LOOPBACK})
SlurmctldPort={control}
SlurmUser=root
SlurmdUser=root

# A munge of its own. A requeued job waits until its old credential has expired: 120 s by default, and 5 s is the least
# that Slurm accepts.
AuthType=auth/munge
AuthInfo=socket={folder}/run/munge.socket,cred_expire=5
CredType=cred/munge

StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/run/slurmctld.pid
SlurmdPidFile={folder}/run/slurmd.%n.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.%n.log

FirstJobId={settings.first_job_id}
MaxArraySize={settings.max_array_size}

# No cgroups, which need systemd or a container's permission: a job's processes are found by parentage.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none

# Several jobs share a node, each with CPUs and GPUs of its own. Memory is not counted.
SelectType=select/cons_tres
SelectTypeParameters=CR_Core

# Schedule at once: by default a batch job waits up to 3 s for more to come.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1,default_queue_depth=1000
PriorityType=priority/basic

# A slurmctld started anew finds other ids in the file than the running slurmds did.
DebugFlags=NO_CONF_HASH

# A job in `high` takes the place of one in `main`, which gets the signal of its --signal and is requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
JobRequeue=1

# Short, so that what takes minutes on a cluster takes seconds here: from SIGTERM to SIGKILL, and from a node's silence
# to its death.
KillWait=5
SlurmdTimeout=10
# A node that comes back is used again without an operator.
ReturnToService=2

# The nodes are daemons of one machine.
SlurmdParameters=config_overrides
GresTypes=gpu
{nodes}

# GraceTime: from the signal to the end of a preempted job, in s.
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL Default=NO MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""
