"""What kind of file system a path lies on, as the Linux kernel says it."""

import os
import re
from dataclasses import dataclass
from pathlib import Path

MOUNTS = Path("/proc/self/mountinfo")
_FORGETFUL = {
    "tmpfs": "memory, lost when this machine restarts",
    "ramfs": "memory, lost when this machine restarts",
    "overlay": "of a container, lost with it",
    "aufs": "of a container, lost with it",
}
_ON_DISK = {"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "jfs", "reiserfs", "bcachefs"}
_FOREIGN = {"vfat", "exfat", "ntfs", "ntfs3", "fuseblk"}
_NETWORK = {
    *("nfs", "nfs4", "cifs", "smb3", "lustre", "gpfs", "beegfs", "ceph", "panfs", "pvfs2", "wekafs", "afs"),
    *("fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse", "fuse.juicefs"),
}
_LOCKS_OF_ONE_MACHINE = {"nolock", "localflock", "local_lock=flock", "local_lock=all"}


def is_read_only(path: Path) -> bool:
    """Return whether a path lies on a file system that is mounted for reading only."""
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system.

    Attributes:
        kind: ext4, nfs4, lustre, ...
        point: where it is mounted.
        options: of the mount.
    """

    kind: str
    point: Path
    options: frozenset[str]

    @property
    def of_one_machine(self) -> bool:
        """Whether no other machine can see it; kinds that are not known may be shared."""
        return self.kind in _ON_DISK | _FOREIGN | _FORGETFUL.keys()

    @property
    def of_the_network(self) -> bool:
        """Whether it is known to be shared over a network, where a SQLite file does not belong."""
        return self.kind in _NETWORK

    @property
    def forgetful(self) -> str | None:
        """Why what is written there will be lost; None where it stays."""
        return _FORGETFUL.get(self.kind)

    @property
    def locks_of_one_machine(self) -> bool:
        """Whether it is mounted such that other machines do not see this one's locks."""
        return bool(self.options & _LOCKS_OF_ONE_MACHINE)


def file_system_of(path: Path, mounts: Path = MOUNTS) -> FileSystem | None:
    """Return the file system of an existing path; None where this system has no list of mounts."""
    if not mounts.exists():
        return None
    lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    place = path.resolve()
    found = [system for system in map(_parsed, lines) if place.is_relative_to(system.point)]
    # of two that are mounted on one place, the later hides the earlier
    return max(reversed(found), key=lambda system: len(system.point.parts), default=None)


def _parsed(line: str) -> FileSystem:
    mount, _, device = line.partition(" - ")
    fields, (kind, _, super_options) = mount.split(), device.split(" ", 2)
    point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[4])
    return FileSystem(kind, Path(point), frozenset([*fields[5].split(","), *super_options.strip().split(",")]))
