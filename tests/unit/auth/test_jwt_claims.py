"""Which claims make which credential."""

from math import inf, nan
from typing import Any

import pytest

from busyapi.auth.credential import make_anonymous
from busyapi.auth.jwt_claims import ClaimRules, make_credential, parse_required_claims
from busyapi.auth.token_file import parse_token_file
from busyapi.errors import ConfigError, InvalidCredential
from testkit.jwt_issuer import AUDIENCE, ISSUER, make_claims

RULES = ClaimRules(ISSUER, (AUDIENCE,), leeway=10)


def test_the_usual_claims_make_a_credential() -> None:
    claims = make_claims(scope="openid write read:own", tenant="north", patient=100, rate=2.5)
    credential = make_credential(RULES, claims)
    assert credential.name == f"jwt:clinic/{credential.id[:12]}"
    assert credential.scopes == frozenset({"write", "read:own"})
    assert (credential.tenant, credential.patient_id, credential.rate) == ("north", "100", 2.5)
    assert credential.expires_at == claims["exp"] + 10


def test_the_id_stays_over_renewals_and_differs_between_subjects_and_issuers() -> None:
    def identify(rules: ClaimRules = RULES, **changes: Any) -> str:
        return make_credential(rules, make_claims(**changes)).id

    assert identify() == identify(exp=10**10, jti="other", scope="read")
    assert identify() != identify(sub="other")
    assert identify() != identify(ClaimRules("https://other", (AUDIENCE,)))
    assert identify(sub=None) == identify(sub=None, exp=10**10)
    assert identify(sub=None) != identify(sub="clinic"), "a user may choose the text of a client"


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"client_id": None, "azp": "https://app/1"}, "https___app_1"),
        ({"client_id": None, "azp": "a.b-c_D"}, "a.b-c_D"),
        ({"client_id": None}, ""),
        ({"client_id": "two words"}, "two_words"),
        ({"client_id": "a\nb\ud800"}, "a_b_"),
        ({"client_id": "os:root"}, "os_root"),
        ({"client_id": "x" * 65}, "x" * 64),
        ({"client_id": ["clinic"]}, ""),
    ],
)
def test_the_name_has_the_application_and_a_digest_of_the_subject(
    changes: dict[str, Any], name: str
) -> None:
    credential = make_credential(RULES, make_claims(sub="patient@example.org", **changes))
    assert credential.name == f"jwt:{name}/{credential.id[:12]}"


def test_two_subjects_of_an_application_have_different_names() -> None:
    names = {make_credential(RULES, make_claims(sub=sub)).name for sub in ("a", "b", "a")}
    assert len(names) == 2


@pytest.mark.parametrize("name", ["anonymous", "token-7", "os:root", "jwt:clinic/0123456789ab"])
def test_no_token_has_the_name_of_a_jwt_and_no_jwt_that_of_a_token(name: str) -> None:
    credential = make_credential(RULES, make_claims(client_id=name))
    assert credential.name != name
    for table in (f'[tokens."{credential.name}"]\n', f'[certificates."{credential.name}"]\n'):
        with pytest.raises(ConfigError, match="a name in"):
            parse_token_file(table.encode())
    assert ":" not in make_anonymous(()).name


@pytest.mark.parametrize(
    ("changes", "scopes"),
    [
        ({"scope": "write read"}, {"write", "read"}),
        ({"scope": ["write", "read"]}, {"write", "read"}),
        ({"scope": None, "scp": ["write"]}, {"write"}),
        ({"scope": None, "scp": "read write"}, {"write", "read"}),
        ({"scope": "", "scp": "write"}, set()),
        ({"scope": None}, set()),
        ({"scope": "Write WRITE write,read"}, set()),
        ({"scope": [["write"], None, 7]}, set()),
        ({"scope": {"write": True}}, set()),
        ({"scope": 7}, set()),
    ],
)
def test_only_known_scopes_of_the_first_claim_count(
    changes: dict[str, Any], scopes: set[str]
) -> None:
    assert make_credential(RULES, make_claims(**changes)).scopes == frozenset(scopes)


def test_claims_can_have_other_names_paths_and_prefixes() -> None:
    rules = ClaimRules(
        ISSUER,
        (AUDIENCE,),
        scopes=("realm_access.roles",),
        scope_prefix="usages:",
        tenant="https://busyapi/tenant",
        patient="",
        rate="limits.rate",
    )
    claims = make_claims(
        realm_access={"roles": ["usages:write", "read", "usages:unknown"]},
        patient=["ignored"],
        limits={"rate": 7},
        **{"https://busyapi/tenant": "north"},
    )
    credential = make_credential(rules, claims)
    assert credential.scopes == frozenset({"write"})
    assert (credential.tenant, credential.patient_id, credential.rate) == ("north", None, 7)
    claims["realm_access"] = "roles"
    assert not make_credential(rules, claims).scopes


@pytest.mark.parametrize(
    "changes",
    [
        {"sub": ""},
        {"sub": 7},
        {"sub": None, "client_id": None},
        {"sub": None, "client_id": 7},
        {"patient": ["100"]},
        {"patient": ""},
        {"patient": True},
        {"patient": 1.5},
        {"patient": "x" * 129},
        {"tenant": {"name": "north"}},
        {"tenant": "x" * 129},
        {"tenant": "\ud800"},
        {"rate": 0},
        {"rate": -1},
        {"rate": "7"},
        {"rate": True},
        {"rate": inf},
        {"rate": nan},
    ],
)
def test_a_limit_that_is_not_understood_is_not_ignored(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidCredential):
        make_credential(RULES, make_claims(**changes))


def test_required_claims_must_be_there_with_their_value() -> None:
    required = parse_required_claims(" azp = clinic , email_verified,groups=devices,")
    assert required == {"azp": "clinic", "email_verified": None, "groups": "devices"}
    rules = ClaimRules(ISSUER, (AUDIENCE,), required)
    claims = {"azp": "clinic", "email_verified": False, "groups": ["users", "devices"]}
    assert make_credential(rules, make_claims(**claims)).name.startswith("jwt:clinic/")
    for change in (
        {"azp": "other"},
        {"azp": None},
        {"azp": ["clinics"]},
        {"email_verified": None},
        {"groups": ["users"]},
    ):
        with pytest.raises(InvalidCredential):
            make_credential(rules, make_claims(**claims | change))


@pytest.mark.parametrize(("issuer", "audiences"), [("", (AUDIENCE,)), (ISSUER, ())])
def test_without_issuer_and_audience_nothing_starts(
    issuer: str, audiences: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match="BUSYAPI_JWT_ISSUER and BUSYAPI_JWT_AUDIENCE"):
        ClaimRules(issuer, audiences)
