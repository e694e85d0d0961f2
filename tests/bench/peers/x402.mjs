// The x402 facilitator's own verify and settle, wired to viem as in its `facilitator/basic` example,
// without the HTTP server around it. One thing more than the example has: viem's nonceManager,
// without which concurrent settlements take each other's nonces. It waits for each receipt.

import { x402Facilitator } from "@x402/core/facilitator";
import { toFacilitatorEvmSigner } from "@x402/evm";
import { registerExactEvmScheme } from "@x402/evm/exact/facilitator";
import { createWalletClient, defineChain, http, publicActions } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { job, settleAll } from "./job.mjs";

const NETWORK = `eip155:${job.chainId}`;
const MAX_TIMEOUT_S = 3600;

const account = privateKeyToAccount(job.secret, { nonceManager });
const client = createWalletClient({
  account,
  chain: defineChain({
    id: job.chainId,
    name: "dev",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [job.rpcUrl] } },
    blockTime: job.blockTimeMs, // how often viem asks for receipts depends on it
  }),
  transport: http(job.rpcUrl),
}).extend(publicActions);

const facilitator = new x402Facilitator();
registerExactEvmScheme(facilitator, {
  networks: NETWORK,
  signer: toFacilitatorEvmSigner({
    address: account.address,
    getCode: (asked) => client.getCode(asked),
    readContract: (asked) => client.readContract({ ...asked, args: asked.args ?? [] }),
    verifyTypedData: (asked) => client.verifyTypedData(asked),
    writeContract: (asked) => client.writeContract(asked),
    sendTransaction: (asked) => client.sendTransaction(asked),
    waitForTransactionReceipt: (asked) => client.waitForTransactionReceipt(asked),
  }),
});

function terms({ to, value }) {
  return {
    scheme: "exact",
    network: NETWORK,
    asset: job.token,
    amount: value,
    payTo: to,
    maxTimeoutSeconds: MAX_TIMEOUT_S,
    extra: { name: job.tokenName, version: job.tokenVersion },
  };
}

await settleAll(async ({ authorization, signature }) => {
  const accepted = terms(authorization);
  const payload = { x402Version: 2, accepted, payload: { authorization, signature } };
  const verdict = await facilitator.verify(payload, accepted);
  if (!verdict.isValid) throw new Error(`not valid: ${verdict.invalidReason}`);
  const settled = await facilitator.settle(payload, accepted);
  if (!settled.success) throw new Error(`not settled: ${settled.errorReason}`);
});
