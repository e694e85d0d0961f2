// viem: a wallet client whose account has viem's nonceManager, as its documentation has it. The gas
// limit is given: without it each payment costs an estimate more, and half the rate. Fees are left to
// the library. Nobody waits for a receipt.

import { createWalletClient, defineChain, http } from "viem";
import { nonceManager, privateKeyToAccount } from "viem/accounts";
import { callArguments, job, settleAll } from "./job.mjs";

const client = createWalletClient({
  account: privateKeyToAccount(job.secret, { nonceManager }),
  chain: defineChain({
    id: job.chainId,
    name: "dev",
    nativeCurrency: { name: "Ether", symbol: "ETH", decimals: 18 },
    rpcUrls: { default: { http: [job.rpcUrl] } },
  }),
  transport: http(job.rpcUrl),
});

await settleAll((payment) =>
  client.writeContract({
    address: job.token,
    abi: job.abi,
    functionName: "transferWithAuthorization",
    args: callArguments(payment),
    gas: BigInt(job.gasLimit),
  }),
);
