// ethers 6: a contract behind a NonceManager, as its documentation has it. Chain id and gas limit are
// given: without the limit each payment costs an estimate more, and half the rate. Fees are left to
// the library. Nobody waits for a receipt.

import { Contract, JsonRpcProvider, NonceManager, Wallet } from "ethers";
import { callArguments, job, settleAll } from "./job.mjs";

const network = { chainId: job.chainId, name: "dev" };
const provider = new JsonRpcProvider(job.rpcUrl, network, { staticNetwork: true });
const signer = new NonceManager(new Wallet(job.secret, provider));
const token = new Contract(job.token, job.abi, signer);

const overrides = { gasLimit: job.gasLimit };
await settleAll((payment) => token.transferWithAuthorization(...callArguments(payment), overrides));
