// SPDX-License-Identifier: MIT
pragma solidity ^0.8.20;

/// The dev chain's stablecoin: ERC-20 with EIP-3009 authorizations over an EIP-712 domain.
/// Written from the EIPs. It keeps the habits of the coins in the field that a settlement service can see:
/// strict time bounds, v 27 or 28, low s, `AuthorizationUsed` logged before `Transfer`.
/// It does not know ERC-1271: an authorizer that is a contract cannot sign.
/// Anyone may pass on an authorization; only `owner` may mint. Not for real money: there is no pause or recovery.
contract DevToken {
    event Transfer(address indexed from, address indexed to, uint256 value);
    event Approval(address indexed owner, address indexed spender, uint256 value);
    event AuthorizationUsed(address indexed authorizer, bytes32 indexed nonce);
    event AuthorizationCanceled(address indexed authorizer, bytes32 indexed nonce);

    bytes32 public constant TRANSFER_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "TransferWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 public constant RECEIVE_WITH_AUTHORIZATION_TYPEHASH = keccak256(
        "ReceiveWithAuthorization(address from,address to,uint256 value,uint256 validAfter,uint256 validBefore,bytes32 nonce)"
    );
    bytes32 public constant CANCEL_AUTHORIZATION_TYPEHASH =
        keccak256("CancelAuthorization(address authorizer,bytes32 nonce)");
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");

    // secp256k1's order halved (EIP-2): of the two valid s of a signature only the lower one counts.
    uint256 private constant HALF_ORDER = 0x7fffffffffffffffffffffffffffffff5d576e7357a4501ddfe92f46681b20a0;

    string public name;
    string public symbol;
    string public version;
    uint8 public immutable decimals;
    address public immutable owner;
    uint256 public totalSupply;
    mapping(address => uint256) public balanceOf;
    mapping(address => mapping(address => uint256)) public allowance;
    /// True once the nonce was used *or* cancelled.
    mapping(address => mapping(bytes32 => bool)) public authorizationState;

    uint256 private immutable deployedChainId;
    bytes32 private immutable deployedDomainSeparator;

    constructor(
        string memory name_,
        string memory symbol_,
        uint8 decimals_,
        string memory version_,
        address owner_
    ) {
        name = name_;
        symbol = symbol_;
        version = version_;
        decimals = decimals_;
        owner = owner_;
        deployedChainId = block.chainid;
        deployedDomainSeparator = _domainSeparator(name_, version_);
    }

    function mint(address to, uint256 value) external {
        require(msg.sender == owner, "DevToken: caller is not the owner");
        require(to != address(0), "DevToken: mint to the zero address");
        // Checked: no sum of balances can overflow where the supply does not.
        totalSupply += value;
        unchecked {
            balanceOf[to] += value;
        }
        emit Transfer(address(0), to, value);
    }

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
        require(value <= allowed, "DevToken: transfer amount exceeds allowance");
        unchecked {
            allowance[from][msg.sender] = allowed - value;
        }
        _transfer(from, to, value);
        return true;
    }

    function transferWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        _requireInTime(validAfter, validBefore);
        _use(
            from,
            nonce,
            keccak256(
                abi.encode(TRANSFER_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
            ),
            v,
            r,
            s
        );
        emit AuthorizationUsed(from, nonce);
        _transfer(from, to, value);
    }

    /// As transferWithAuthorization, but only the payee may call: nobody can take the call out of its context.
    function receiveWithAuthorization(
        address from,
        address to,
        uint256 value,
        uint256 validAfter,
        uint256 validBefore,
        bytes32 nonce,
        uint8 v,
        bytes32 r,
        bytes32 s
    ) external {
        require(msg.sender == to, "DevToken: caller must be the payee");
        _requireInTime(validAfter, validBefore);
        _use(
            from,
            nonce,
            keccak256(
                abi.encode(RECEIVE_WITH_AUTHORIZATION_TYPEHASH, from, to, value, validAfter, validBefore, nonce)
            ),
            v,
            r,
            s
        );
        emit AuthorizationUsed(from, nonce);
        _transfer(from, to, value);
    }

    function cancelAuthorization(address authorizer, bytes32 nonce, uint8 v, bytes32 r, bytes32 s) external {
        _use(authorizer, nonce, keccak256(abi.encode(CANCEL_AUTHORIZATION_TYPEHASH, authorizer, nonce)), v, r, s);
        emit AuthorizationCanceled(authorizer, nonce);
    }

    /// EIP-712. Kept from the deployment, worked out anew only if a fork changed the chain id.
    function DOMAIN_SEPARATOR() public view returns (bytes32) {
        return block.chainid == deployedChainId ? deployedDomainSeparator : _domainSeparator(name, version);
    }

    function _domainSeparator(string memory name_, string memory version_) private view returns (bytes32) {
        return keccak256(
            abi.encode(
                DOMAIN_TYPEHASH, keccak256(bytes(name_)), keccak256(bytes(version_)), block.chainid, address(this)
            )
        );
    }

    function _requireInTime(uint256 validAfter, uint256 validBefore) private view {
        require(block.timestamp > validAfter, "DevToken: authorization is not yet valid");
        require(block.timestamp < validBefore, "DevToken: authorization is expired");
    }

    /// Takes the authorizer's nonce out of play, if he signed this very struct.
    function _use(address authorizer, bytes32 nonce, bytes32 structHash, uint8 v, bytes32 r, bytes32 s) private {
        require(!authorizationState[authorizer][nonce], "DevToken: authorization is used or canceled");
        address signer = address(0);
        if (uint256(s) <= HALF_ORDER) {
            signer = ecrecover(keccak256(abi.encodePacked(hex"1901", DOMAIN_SEPARATOR(), structHash)), v, r, s);
        }
        // ecrecover answers a broken signature (also a v other than 27 and 28) with zero, which must
        // never pass as an authorizer.
        require(signer != address(0) && signer == authorizer, "DevToken: invalid signature");
        authorizationState[authorizer][nonce] = true;
    }

    function _transfer(address from, address to, uint256 value) private {
        require(to != address(0), "DevToken: transfer to the zero address");
        uint256 balance = balanceOf[from];
        require(value <= balance, "DevToken: transfer amount exceeds balance");
        unchecked {
            balanceOf[from] = balance - value;
            balanceOf[to] += value;
        }
        emit Transfer(from, to, value);
    }
}
