#!/usr/bin/env bash
# tools/boringssl with a cargo, cmake and ninja that only note what they are asked: boringssl_test.sh
set -u
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
num=0 bad=0
ok() { # ok NAME COMMAND...
  num=$((num + 1))
  if "${@:2}"; then echo "ok $num - $1"; else echo "not ok $num - $1"; bad=1; fi
}
mkdir "$work/bin" "$work/a folder"
cat >"$work/bin/cargo" <<'X'
#!/bin/bash
echo "cargo $*" >>"$NOTES"
[ -z "${HANG:-}" ] || { touch "$NOTES.hangs"; exec sleep 60; }
to=${*: -1}/boring-sys
mkdir -p "$to/deps/boringssl/include/openssl" "$to/patches"
echo old >"$to/deps/boringssl/f"
printf -- '--- a/f\n+++ b/f\n@@ -1 +1 @@\n-old\n+new\n' >"$to/patches/boring-pq.patch"
X
cat >"$work/bin/cmake" <<'X'
#!/bin/bash
echo "cmake ASM=${ASM:-}" >>"$NOTES"
while [ "$1" != -S ]; do shift; done
[ "$(cat "$2/f")" = new ] && mkdir -p "$4" && touch "$4/libcrypto.a" "$4/libssl.a"
X
printf '#!/bin/sh\n' >"$work/bin/ninja"
chmod +x "$work/bin/"*
export PATH=$work/bin:$PATH NOTES=$work/notes
unset CC ASM
cd "$work/a folder" || exit 1

ok "a cache folder may be named from here" env SLUICE_CACHE="the cache" "$root/tools/boringssl" 2>"$work/log" || cat "$work/log"
prefix=$(SLUICE_CACHE="the cache" "$root/tools/boringssl" --prefix)
ok "the prefix is named from the root, and there" test -f "$prefix/lib/libssl.a" -a "${prefix:0:1}" = /
ok "cargo is to go where its configuration says" grep -q "^cargo vendor .*--respect-source-config" "$NOTES"
ok "without CC none for the assembler either" grep -qx "cmake ASM=" "$NOTES"
SLUICE_CACHE=2 CC="ccache gcc" "$root/tools/boringssl" 2>"$work/log" || cat "$work/log"
ok "CC with arguments is the assembler's, too" grep -qx "cmake ASM=ccache gcc" "$NOTES"

HANG=1 SLUICE_CACHE=3 python3 -c '
import os, signal, subprocess, sys, time
p = subprocess.Popen(sys.argv[1:], start_new_session=True, stderr=subprocess.DEVNULL)
end = time.monotonic() + 20
while not os.path.exists(os.environ["NOTES"] + ".hangs") and time.monotonic() < end:
    time.sleep(0.02)
time.sleep(0.5)
os.killpg(p.pid, signal.SIGINT)
sys.exit(0 if p.wait(20) else 1)' "$root/tools/boringssl"
ok "Ctrl-C ends it with a failure" test $? = 0
ok "and leaves nothing of the build" test -d 3 -a -z "$(ls 3)"
echo "1..$num"
exit $bad
