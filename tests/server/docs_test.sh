#!/bin/sh
# docs_test.sh SLUICE-DOCS FILE: is the checked-in page what the option table says?
out=$(mktemp)
trap 'rm -f "$out"' EXIT
echo 1..1
"$1" markdown "$out" || { echo "not ok 1 - sluice-docs runs"; exit 1; }
if diff -u "$2" "$out" >&2; then
  echo "ok 1 - docs/configuration.md is up to date"
else
  echo "not ok 1 - docs/configuration.md is up to date"
fi
