"""A site whose SLURM commands print in the form of real ones, for settings that no sandbox has."""

import shlex
import shutil

CONFIGURATION = """\
Configuration data as of 2026-03-02T10:15:30
AuthInfo                = (null)
AuthType                = auth/munge
BOOT_TIME               = 2026-02-27T14:29:28
GraceTime               = 0
JobRequeue              = 1
KillWait                = 30 sec
MaxArraySize            = 4001
MaxJobCount             = 50000
NEXT_JOB_ID             = 15258290
PowerPlugin             = 
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
PreemptExemptTime       = 00:00:00
SchedulerParameters     = batch_sched_delay=0,bf_interval=1
SlurmctldHost[0]        = ctl(10.0.0.1)
SlurmctldParameters     = enable_configless,preempt_send_user_signal
SLURM_CONF              = /etc/slurm/slurm.conf
SLURM_VERSION           = 23.02.6

Cgroup Support Configuration:
AllowedRAMSpace         = 100.0%

Slurmctld(primary) at ctl is UP
"""  # noqa: W291 - as printed
_PARTITION = (
    "PartitionName={name} AllowGroups=ALL AllowAccounts=ALL AllowQos=ALL AllocNodes=ALL Default={default} QoS=N/A "
    "DefaultTime=01:00:00 DisableRootJobs=NO ExclusiveUser=NO GraceTime={grace} Hidden={hidden} MaxNodes=UNLIMITED "
    "MaxTime={time} MinNodes=0 LLN=NO MaxCPUsPerNode=UNLIMITED Nodes=c[01-04] PriorityJobFactor=1 PriorityTier=1 "
    "RootOnly=NO ReqResv=NO OverSubscribe=YES:4 OverTimeLimit=NONE PreemptMode={mode} State={state} TotalCPUs=128 "
    "TotalNodes=4 SelectTypeParameters=NONE JobDefaults=(null) DefMemPerCPU=4000 MaxMemPerNode=UNLIMITED "
    "TRES=cpu=128,mem=515200M,node=4,billing=128 TRESBillingWeights=CPU=1.0,Mem=0.25G"
)
PARTITIONS = "\n".join(
    _PARTITION.format(name=name, default=default, grace=grace, hidden=hidden, time=time, mode=mode, state=state)
    for name, default, grace, hidden, time, mode, state in (
        ("cpu", "YES", 0, "NO", "08:00:00", "OFF", "UP"),
        ("gpu", "NO", 60, "NO", "2-00:00:00", "REQUEUE", "UP"),
        ("long", "NO", 0, "NO", "UNLIMITED", "OFF", "DOWN"),
        ("staff", "NO", 0, "YES", "UNLIMITED", "OFF", "UP"),
        ("empty", "NO", 0, "NO", "00:30:00", "CANCEL", "UP"),
    )
)
NODES = """\
cpu|3/1/0/4|(null)
gpu|1/1/1/3|gpu:a100:4(S:0-1)
gpu|2/0/0/2|gpu:v100:2,shard:8
long|0/4/0/4|(null)
staff|0/1/0/1|gpu:h100:8(S:0,1)
empty|0/0/2/2|gpu:2
"""
HOSTS = "c01\nc02\nc03\nc04\ng01\ng01\n"
NO_ACCOUNTING = "echo 'Slurm accounting storage is disabled' >&2; exit 1"


def fake_site(
    folder,
    monkeypatch,
    configuration=CONFIGURATION,
    partitions=PARTITIONS,
    nodes=NODES,
    hosts=HOSTS,
    squeue="true",
    sacct=NO_ACCOUNTING,
):
    """Put commands that print these texts, or run these shell lines, alone on PATH; git stays."""
    commands = {
        "sbatch": "exit 1",
        "squeue": squeue,
        "sacct": sacct,
        "scontrol": _prints({"*config*": configuration, "*partition*": partitions}),
        "sinfo": _prints({"*--Node*": hosts, "*": nodes}),
    }
    alone_on_path(folder, monkeypatch, commands)


def alone_on_path(folder, monkeypatch, commands):
    """Make `folder` the PATH: git, and these commands as shell scripts; what they are asked is in its file `asked`."""
    folder.mkdir(exist_ok=True)
    if "git" not in commands and not (folder / "git").exists():
        (folder / "git").symlink_to(shutil.which("git"))
    for name, lines in commands.items():
        (folder / name).write_text(f'#!/bin/sh\nPATH=/usr/bin:/bin\necho "{name} $*" >> {folder}/asked\n{lines}\n')
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def _prints(texts):
    cases = (f"{pattern}) printf %s {shlex.quote(text)} ;;" for pattern, text in texts.items())
    return f'case "$*" in\n{chr(10).join(cases)}\nesac'
