"""Clean worktrees of the commits, and their release builds. Three sides: BASE, HEAD, and BASE AGAIN (the canary), which is a
copy of BASE's programs. The folders' names are equally long, so that neither paths nor arguments differ in length."""
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SIDES = ("base", "head", "same")
PROGRAMS = {"sluice": "src/cli/sluice", "core": "bench/core/core", "kernels": "bench/kernels/kernels", "count": "bench/gate/count"}
# A longer function shifts all that follow, which alone makes loops 1 or 2 % faster or slower: keep functions on cache lines.
ALIGNED = ("-Dc_args=-falign-functions=64", "-Dcpp_args=-falign-functions=64")
LIBRARIES = ("bench/kernels/libpeer_boringssl.so",)


class Refused(Exception):
    """What the user can put right; the text says how."""


def git(*args, check=True):
    r = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
    if check and r.returncode:
        raise Refused(f"git {' '.join(args)}: {r.stderr.strip()}")
    return r.stdout.strip()


def resolve(name):
    sha = git("rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}", check=False)
    if not sha:
        raise Refused(f"'{name}' is no commit of this repository")
    return sha


def check_clean(names):
    """A dirty tree is an error where the checked-out commit is one of the two: what is not committed would not be measured."""
    dirty = git("status", "--porcelain", "--untracked-files=no")
    here = git("rev-parse", "HEAD")
    for name in names:
        if dirty and resolve(name) == here:
            raise Refused(f"'{name}' is what is checked out here, and there are changes that are not committed: they would not be "
                          "measured. Commit or stash them, or pass --ignore-dirty:\n" + "\n".join(dirty.splitlines()[:5]))


class Side:
    """One build: where its programs lie, and which of them the commit has."""

    def __init__(self, name, commit, folder):
        self.name, self.commit, self.folder = name, commit, Path(folder)

    def program(self, name):
        return self.folder / Path(PROGRAMS[name]).name

    def has(self, name):
        return self.program(name).exists()


class Trees:
    """Makes and removes the worktrees below `work`; builds what is not already there for the same commit."""

    def __init__(self, work, say):
        self.work, self.say, self.added = Path(work), say, []

    def build(self, base, head):
        sides = {}
        for name, commit in (("base", base), ("head", head)):
            sides[name] = Side(name, commit, self.work / name)
            mark = sides[name].folder / "commit"
            if not mark.exists() or mark.read_text() != commit:
                self._build(sides[name])
                mark.write_text(commit)
        sides["same"] = Side("same", base, self.work / "same")
        shutil.rmtree(sides["same"].folder, ignore_errors=True)
        shutil.copytree(sides["base"].folder, sides["same"].folder)
        return sides

    def _build(self, side):
        tree, out = self.work / "tree", side.folder  # one path for both: what depends on it is the same
        self.say(f"building {side.name.upper()}, {side.commit[:12]}")
        self._remove(tree)
        git("worktree", "add", "--detach", "--force", str(tree), side.commit)
        self.added.append(tree)
        env = dict(os.environ, CC="ccache gcc", CXX="ccache g++", CCACHE_BASEDIR=str(tree), CCACHE_NOHASHDIR="1")
        self._run(side, ["tools/boringssl"], tree, env)
        self._run(side, ["meson", "setup", "build", "--buildtype=release", *ALIGNED], tree, env)
        known = subprocess.run(["ninja", "-C", "build", "-t", "targets", "all"], cwd=tree, capture_output=True, text=True).stdout
        known = {line.rsplit(":", 1)[0] for line in known.splitlines()}
        if PROGRAMS["sluice"] not in known:
            raise Refused(f"{side.commit[:12]} has no {PROGRAMS['sluice']}: too old to be measured")
        self._run(side, ["ninja", "-C", "build", PROGRAMS["sluice"]], tree, env)
        targets = [PROGRAMS["sluice"]]
        for target in [t for t in PROGRAMS.values() if t in known and t not in targets]:
            try:
                self._run(side, ["ninja", "-C", "build", target], tree, env)
                targets.append(target)
            except Refused as e:  # its metrics are left out; the rest can still be measured
                self.say(str(e))
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        for target in targets:
            shutil.copy2(tree / "build" / target, out)
        for library in LIBRARIES:  # beside the program that loads it: its run path is its own folder
            if (tree / "build" / library).exists():
                shutil.copy2(tree / "build" / library, out)
        self._remove(tree)

    def _run(self, side, command, tree, env):
        r = subprocess.run(command, cwd=tree, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if r.returncode:
            raise Refused(f"{side.commit[:12]} does not build: {' '.join(command)}\n" + "\n".join(r.stdout.splitlines()[-25:]))

    def _remove(self, tree):
        if tree.exists():
            git("worktree", "remove", "--force", str(tree), check=False)
            shutil.rmtree(tree, ignore_errors=True)
        git("worktree", "prune", check=False)

    def close(self):
        for tree in self.added:
            self._remove(tree)
