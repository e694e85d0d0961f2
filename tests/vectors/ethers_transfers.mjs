// Makes ethers_transfers.json: what ethers 6 signs for EIP-3009 transfers of several tokens, keys and
// extremes. From the root of the repository, after `make build/app_day/.ready`:
//   node tests/vectors/ethers_transfers.mjs build/app_day > tests/vectors/ethers_transfers.json
// The same ethers gives the same bytes: its signatures are deterministic (RFC 6979).

import { createRequire } from "node:module";
import { resolve } from "node:path";

const require = createRequire(resolve(process.argv[2], "package.json"));
const { keccak256, toBeHex, TypedDataEncoder, version, Wallet } = require("ethers");

const PAYEE = "0x" + "cd".repeat(20);
const FIELDS = ["address from", "address to", "uint256 value", "uint256 validAfter",
  "uint256 validBefore", "bytes32 nonce"].map((field) => {
  const [type, name] = field.split(" ");
  return { name, type };
});
const TYPES = { TransferWithAuthorization: FIELDS };

const USDC = ["USD Coin", "2", 1, "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48"];
const DEV = ["Dev Dollar", "1", 31337, "0x" + "70".repeat(20)];
const EURC = ["EURC", "2", 8453, "0x60a3e35cc302bfa44cb288bc5a4f316fdb1adb42"];
const EXOTIC = ["Đồng €uro 💶", "", Number.MAX_SAFE_INTEGER, "0x" + "ff".repeat(20)];
const MOST_UNITS = 2n ** 53n - 1n;
const LAST_SECOND = 2n ** 40n - 1n;
const ORDER = 0xfffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364141n;

const word = (number) => toBeHex(number, 32);
const drawn = (seed) => keccak256(new TextEncoder().encode(seed));

// Token, key, value, end, nonce.
const cases = [
  [USDC, "0x" + "01".repeat(32), 1n, 1_900_000_000n, "0x" + "11".repeat(32)],
  [DEV, "0x" + "fe".repeat(32), MOST_UNITS, LAST_SECOND, word(1)],
  [EURC, "0x" + "7f".repeat(32), 12_500_000n, 4_102_444_800n, "0x" + "ff".repeat(32)],
  [EXOTIC, word(1), 1n, 1n, word(0)],
  [DEV, word(ORDER - 1n), MOST_UNITS, LAST_SECOND, "0x" + "ff".repeat(32)],
];
for (let n = 0; n < 8; n++) {
  const value = (BigInt(drawn(`value ${n}`)) % MOST_UNITS) + 1n;
  const until = BigInt(drawn(`until ${n}`)) % (LAST_SECOND + 1n);
  cases.push([n % 2 ? USDC : DEV, drawn(`key ${n}`), value, until, drawn(`nonce ${n}`)]);
}

async function signed([[name, version, chainId, token], key, value, validBefore, nonce]) {
  const wallet = new Wallet(key);
  const domain = { name, version, chainId, verifyingContract: token };
  const from = wallet.address.toLowerCase();
  const message = { from, to: PAYEE, value, validAfter: 0, validBefore, nonce };
  return {
    name, version, chainId, token, key, payer: from, value: String(value),
    validBefore: String(validBefore), nonce,
    digest: TypedDataEncoder.hash(domain, TYPES, message),
    signature: await wallet.signTypedData(domain, TYPES, message),
  };
}

const made = { source: `ethers ${version}, by ethers_transfers.mjs`, cases: [] };
for (const each of cases) made.cases.push(await signed(each));
process.stdout.write(JSON.stringify(made, null, 2) + "\n");
