// What all peers do alike. Each is a program of its own: `node <peer>.mjs <job file>`. It reads its
// job, says that it is ready, waits for a line, settles, and says that it is done. Which payments
// have arrived is not for it to say: the bench reads the chain.

import { readFileSync } from "node:fs";
import { once } from "node:events";

const SHOWN_CHARS = 300;

export const job = JSON.parse(readFileSync(process.argv[2], "utf8"));

/** A payment's arguments in the order of the call. */
export function callArguments({ authorization: a, v, r, s }) {
  return [a.from, a.to, BigInt(a.value), BigInt(a.validAfter), BigInt(a.validBefore), a.nonce, v, r, s];
}

/** Settle all payments, so many at a time, by what `pay` does with one. */
export async function settleAll(pay) {
  console.log(JSON.stringify({ ready: true }));
  await once(process.stdin, "data");
  const waiting = job.payments.values();
  const work = async () => {
    for (const payment of waiting) {
      await pay(payment).catch(lost);
    }
  };
  await Promise.all(Array.from({ length: job.concurrency }, work));
  console.log(JSON.stringify({ done: true }));
  process.exit(0); // pollers and kept-alive connections would hold it open
}

/** A failed payment ends nothing: it is missing on the chain, and here is why. */
function lost(error) {
  console.error(String(error?.shortMessage ?? error?.message ?? error).slice(0, SHOWN_CHARS));
}
