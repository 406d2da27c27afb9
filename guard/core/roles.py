"""Roles of principals, and which role each act needs."""

from collections.abc import Mapping
from enum import StrEnum


class Role(StrEnum):
    """What a token is for; a person with several roles has several tokens under one name."""

    VIEWER = "viewer"  # reads scans, verdicts and metrics over the API
    UPLOADER = "uploader"  # also has objects under its own prefixes looked at
    REVIEWER = "reviewer"  # also decides about held verdicts and has models scanned again
    OPERATOR = "operator"  # also publishes, withdraws, adds clean sets, gives and revokes tokens
    SIGNER = "signer"  # also trusts and distrusts signing keys and accepts a ledger


class Act(StrEnum):
    """What a principal asks for.

    All but `read` and the acts about the ledger itself leave a row in `acts`, which the ledger
    seals.
    """

    READ = "read"
    SUBMIT = "submit"
    APPROVE = "approve"
    REJECT = "reject"
    PUBLISH = "publish"
    WITHDRAW = "withdraw"
    GIVE_TOKEN = "token_create"  # noqa: S105 - the name of an act
    REVOKE_TOKEN = "token_revoke"  # noqa: S105 - the name of an act
    REMOVE_OWNER = "owner_remove"
    ROLLBACK = "rollback"
    SIFT = "sift"
    RETRAIN = "retrain"
    CANCEL_JOB = "job_cancel"
    TRANSFER = "transfer"
    RESCAN = "rescan"
    ADD_CLEANSET = "cleanset_add"
    ADD_TRAINSET = "trainset_add"
    UPGRADE_DATABASE = "db_upgrade"  # nobody is asked for a token, but who shows one is checked
    RESTORE_DATABASE = "db_restore"  # nobody can be asked: what knows the tokens is not there yet
    CHANGE_POLICY = "policy_change"  # nobody asks for it: the deciding side notices it
    WAIVE = "waive"
    APPROVE_WAIVER = "waiver_approve"
    REVOKE_WAIVER = "waiver_revoke"
    ACKNOWLEDGE = "alarm_ack"
    RETRY = "letter_retry"
    ADD_HOOK = "hook_add"
    REMOVE_HOOK = "hook_remove"
    TEST_HOOK = "hook_test"  # a test event, or a delivery once more
    QUARANTINE = "quarantine"
    CREATE_PROJECT = "project_create"
    CHANGE_PROJECT = "project_change"
    ADD_MEMBER = "member_add"
    REMOVE_MEMBER = "member_remove"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"
    ATTEST = "attest"  # signs a summary of a verdict for other tools
    SYNC_MLFLOW = "mlflow_sync"  # moves an alias of another registry
    TRUST_MODEL_KEY = "model_key_trust"  # a key of model signatures, by its id
    DISTRUST_MODEL_KEY = "model_key_revoke"
    CHANGE_KEYS = "keys"  # these two are acts about the ledger itself, of kinds of their own
    ACCEPT_LEDGER = "ledger_accept"


_OPERATOR = frozenset({Role.OPERATOR})
_REVIEWER = frozenset({Role.REVIEWER})
#: The roles that may do each act. Operators do not review: who gives out tokens could otherwise
#: approve as well, and one pair of eyes would do for everything.
MAY: Mapping[Act, frozenset[Role]] = {
    Act.READ: frozenset(Role),
    Act.SUBMIT: frozenset({Role.UPLOADER, Role.OPERATOR}),
    Act.APPROVE: _REVIEWER,
    Act.REJECT: _REVIEWER,
    Act.PUBLISH: _OPERATOR,
    Act.WITHDRAW: _OPERATOR,
    Act.GIVE_TOKEN: _OPERATOR,
    Act.REVOKE_TOKEN: _OPERATOR,
    Act.REMOVE_OWNER: _OPERATOR,
    Act.ROLLBACK: _OPERATOR,
    Act.SIFT: frozenset({Role.UPLOADER, Role.OPERATOR}),  # uploaders: of their own models only
    Act.RETRAIN: frozenset({Role.UPLOADER, Role.OPERATOR}),
    Act.CANCEL_JOB: frozenset({Role.UPLOADER, Role.OPERATOR}),
    Act.TRANSFER: _OPERATOR,
    Act.RESCAN: _REVIEWER | _OPERATOR,
    Act.ADD_CLEANSET: _OPERATOR,
    Act.ADD_TRAINSET: _OPERATOR,
    Act.UPGRADE_DATABASE: _OPERATOR,
    Act.RESTORE_DATABASE: frozenset(),
    Act.CHANGE_POLICY: frozenset(),
    Act.WAIVE: _REVIEWER,
    Act.APPROVE_WAIVER: _REVIEWER,
    Act.REVOKE_WAIVER: _REVIEWER | _OPERATOR,
    Act.ACKNOWLEDGE: _OPERATOR,
    Act.RETRY: _OPERATOR,
    Act.ADD_HOOK: _OPERATOR,
    Act.REMOVE_HOOK: _OPERATOR,
    Act.TEST_HOOK: _OPERATOR,
    Act.QUARANTINE: _OPERATOR,
    Act.CREATE_PROJECT: _OPERATOR,
    Act.CHANGE_PROJECT: _OPERATOR,
    Act.ADD_MEMBER: _OPERATOR,
    Act.REMOVE_MEMBER: _OPERATOR,
    Act.SIGN_IN: frozenset(Role),
    Act.SIGN_OUT: frozenset(Role),
    Act.ATTEST: _OPERATOR | {Role.SIGNER},
    Act.SYNC_MLFLOW: _OPERATOR,
    Act.TRUST_MODEL_KEY: _OPERATOR | {Role.SIGNER},
    Act.DISTRUST_MODEL_KEY: _OPERATOR | {Role.SIGNER},
    Act.CHANGE_KEYS: _OPERATOR | {Role.SIGNER},
    Act.ACCEPT_LEDGER: _OPERATOR | {Role.SIGNER},
}
#: Acts that nobody may do without a token, not even where no principal exists yet.
NEEDS_TOKEN: frozenset[Act] = frozenset(
    {
        Act.GIVE_TOKEN,
        Act.REVOKE_TOKEN,
        Act.REMOVE_OWNER,
        Act.WAIVE,
        Act.APPROVE_WAIVER,
        Act.REVOKE_WAIVER,
        Act.ADD_HOOK,
        Act.REMOVE_HOOK,
        Act.TEST_HOOK,
        Act.QUARANTINE,
        Act.CREATE_PROJECT,
        Act.CHANGE_PROJECT,
        Act.ADD_MEMBER,
        Act.REMOVE_MEMBER,
        Act.SIGN_IN,
        Act.SIGN_OUT,
    }
)
