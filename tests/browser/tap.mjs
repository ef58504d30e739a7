// TAP for the scripts here, with the count behind it.
let count = 0, failed = 0;

export function ok(good, name, note) {
  count++;
  if (!good) failed++;
  console.log(`${good ? 'ok' : 'not ok'} ${count} - ${name}`);
  if (!good) console.log(`# ${JSON.stringify(note)}`);
}

export function skip(name, reason) {
  console.log(`ok ${++count} - ${name} # SKIP ${reason}`);
}

// Says how many there were and ends the process: no case at all is a failure.
export function done() {
  console.log(`1..${count}`);
  process.exit(failed || !count ? 1 : 0);
}
