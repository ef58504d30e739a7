#!/bin/sh
# Only sluice_ symbols can be seen from outside: symbols.sh LIBSLUICE.so LIBSLUICE.a
echo 1..2
case_of() { # NUMBER NAME COMMAND...
  number=$1 name=$2
  shift 2
  seen=$("$@" | awk '$2 ~ /^[A-TV-Zi]$/ { print $3 }')
  foreign=$(echo "$seen" | grep -v '^sluice_')
  if [ -n "$seen" ] && [ -z "$foreign" ]; then
    echo "ok $number - $name"
  else
    echo "not ok $number - $name"
    echo "$foreign" | head -20 | sed 's/^/# /'
  fi
}
case_of 1 "the shared library" nm -D --defined-only "$1"
case_of 2 "the static library" nm -g --defined-only "$2"
