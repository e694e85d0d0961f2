// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// A merchant's reward points: an ERC-20 that is minted to payers, once for each payment.
/// Every payment's id is remembered for good, so asking for the same mint again changes nothing, whoever asks and
/// however often. Only minters mint; the owner grants and revokes them.
/// Never grant Multicall3, or any other contract that passes on calls: its right to mint would be everyone's.
/// Not here: burning, pausing, a cap on the supply.
contract RewardPoints {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event Minted(bytes32 indexed paymentId, address indexed to, uint256 amount);
    /// The payment was rewarded before; nothing was minted for it now.
    event Skipped(bytes32 indexed paymentId);
    event MinterSet(address indexed minter, bool allowed);
    event OwnershipOffered(address indexed owner, address indexed to);
    event OwnershipTaken(address indexed before, address indexed owner);

    error NotOwner(address caller);
    error NotOfferedTo(address caller);
    error NotMinter(address caller);
    error LengthMismatch(uint256 paymentIds, uint256 recipients, uint256 amounts);
    error ZeroAddress();
    error TooManyDecimals(uint8 decimals);
    error InsufficientBalance(address account, uint256 balance, uint256 wanted);
    error InsufficientAllowance(address spender, uint256 allowed, uint256 wanted);

    /// Amounts in the gateway's ledger are 64-bit integers.
    uint8 public constant MAX_DECIMALS = 6;

    string public name;
    string public symbol;
    uint8 public immutable decimals;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;

    address public owner;
    /// Whom the owner has offered the contract to; zero: nobody.
    address public offeredTo;
    mapping(address => bool) public isMinter;
    /// True once a payment was rewarded.
    mapping(bytes32 => bool) public isMinted;

    modifier onlyOwner() {
        if (msg.sender != owner) revert NotOwner(msg.sender);
        _;
    }

    constructor(string memory name_, string memory symbol_, uint8 decimals_, address owner_) {
        if (decimals_ > MAX_DECIMALS) revert TooManyDecimals(decimals_);
        if (owner_ == address(0)) revert ZeroAddress();
        name = name_;
        symbol = symbol_;
        decimals = decimals_;
        owner = owner_;
        emit OwnershipTaken(address(0), owner_);
    }

    // --- minting

    /// Mint to each payer unless its payment was rewarded before: then that entry alone is skipped. All or nothing
    /// otherwise. Returns how many were minted now.
    function mintBatch(bytes32[] calldata paymentIds, address[] calldata to, uint256[] calldata amounts)
        external
        returns (uint256 minted)
    {
        if (!isMinter[msg.sender]) revert NotMinter(msg.sender);
        uint256 length = paymentIds.length;
        if (to.length != length || amounts.length != length) revert LengthMismatch(length, to.length, amounts.length);
        uint256 added;
        for (uint256 i; i < length; ++i) {
            bytes32 paymentId = paymentIds[i];
            if (isMinted[paymentId]) {
                emit Skipped(paymentId);
                continue;
            }
            isMinted[paymentId] = true;
            added += amounts[i];
            ++minted;
            _credit(paymentId, to[i], amounts[i]);
        }
        // Checked, and the last: no balance has overflowed where the supply, which is their sum, does not.
        totalSupply += added;
    }

    function _credit(bytes32 paymentId, address to, uint256 amount) private {
        if (to == address(0)) revert ZeroAddress();
        unchecked {
            balanceOf[to] += amount;
        }
        emit Transfer(address(0), to, amount);
        emit Minted(paymentId, to, amount);
    }

    // --- who may

    function setMinter(address minter, bool allowed) external onlyOwner {
        if (minter == address(0)) revert ZeroAddress();
        isMinter[minter] = allowed;
        emit MinterSet(minter, allowed);
    }

    /// The first of two steps, so that no slip of an address loses the contract. Zero takes an offer back.
    function offerOwnership(address to) external onlyOwner {
        offeredTo = to;
        emit OwnershipOffered(msg.sender, to);
    }

    function takeOwnership() external {
        if (msg.sender != offeredTo) revert NotOfferedTo(msg.sender);
        emit OwnershipTaken(owner, msg.sender);
        owner = msg.sender;
        offeredTo = address(0);
    }

    // --- ERC-20

    function transfer(address to, uint256 value) external returns (bool) {
        _transfer(msg.sender, to, value);
        return true;
    }

    function approve(address spender, uint256 value) external returns (bool) {
        allowance[msg.sender][spender] = value;
        emit Approval(msg.sender, spender, value);
        return true;
    }

    function transferFrom(address from, address to, uint256 value) external returns (bool) {
        uint256 allowed = allowance[from][msg.sender];
        if (value > allowed) revert InsufficientAllowance(msg.sender, allowed, value);
        unchecked {
            allowance[from][msg.sender] = allowed - value;
        }
        _transfer(from, to, value);
        return true;
    }

    function _transfer(address from, address to, uint256 value) private {
        if (to == address(0)) revert ZeroAddress();
        uint256 balance = balanceOf[from];
        if (value > balance) revert InsufficientBalance(from, balance, value);
        unchecked {
            balanceOf[from] = balance - value;
            balanceOf[to] += value;
        }
        emit Transfer(from, to, value);
    }
}
