// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// The dev chain's stand-in for Multicall3: the same selectors and the same answers for what is here, own code.
/// Holds no money and no state; whoever calls it acts as this contract.
contract DevMulticall3 {
    struct Call3 {
        address target;
        bool allowFailure;
        bytes callData;
    }

    struct Result {
        bool success;
        bytes returnData;
    }

    /// Runs the calls in order. A failing call reverts all of them, unless it says allowFailure.
    function aggregate3(Call3[] calldata calls) external payable returns (Result[] memory results) {
        uint256 count = calls.length;
        results = new Result[](count);
        for (uint256 i = 0; i < count; ++i) {
            Call3 calldata item = calls[i];
            (bool success, bytes memory returnData) = item.target.call(item.callData);
            require(success || item.allowFailure, "DevMulticall3: call failed");
            results[i].success = success;
            results[i].returnData = returnData;
        }
    }

    function getBlockNumber() external view returns (uint256 blockNumber) {
        return block.number;
    }

    function getCurrentBlockTimestamp() external view returns (uint256 timestamp) {
        return block.timestamp;
    }

    function getEthBalance(address account) external view returns (uint256 balance) {
        return account.balance;
    }
}
