"""Settings come from the environment, once, strictly; secrets do not show themselves."""

from dataclasses import FrozenInstanceError, fields
from pathlib import Path

import pytest

from guard.core.errors import InputError
from guard.policy.load import load_policy, packaged
from guard.settings import Secret, Settings, child_environment, describe, load_settings


def test_without_an_environment_there_are_defaults() -> None:
    settings = load_settings({})

    assert settings == Settings()
    assert settings.database_url == f"sqlite:///{settings.data_dir / 'guard.db'}"
    assert settings.intake_buckets == ("models",)
    assert settings.torchserve_store == settings.data_dir / "torchserve" / "model-store"
    assert not settings.webhook_token


def test_what_is_not_set_follows_from_what_is(tmp_path: Path) -> None:
    settings = load_settings({"GUARD_DATA_DIR": str(tmp_path), "GUARD_INTAKE_BUCKET": "in"})

    assert settings.database_url == f"sqlite:///{tmp_path}/guard.db"
    assert (settings.blob_url, settings.intake_buckets) == (str(tmp_path / "blobs"), ("in",))
    assert settings.signing_key_file == tmp_path / "keys" / "signing.pem"


def test_every_type_is_read() -> None:
    settings = load_settings(
        {
            "GUARD_MAX_UPLOAD_BYTES": "1024",
            "GUARD_LEASE_SECONDS": "1.5",
            "GUARD_ALLOW_UNVERSIONED": "Yes",
            "GUARD_INTAKE_BUCKETS": "a, models ,b",
            "GUARD_POLICY_FILE": "policy.toml",
            "GUARD_WEBHOOK_TOKEN": "t",
            "GUARD_DEVICE": " cpu ",
            "GUARD_S3_REGION": "",
        }
    )

    assert (settings.max_upload_bytes, settings.lease_seconds, settings.allow_unversioned) == (
        1024,
        1.5,
        True,
    )
    assert settings.intake_buckets == ("a", "models", "b")
    assert settings.policy_file == Path.cwd() / "policy.toml"
    assert settings.webhook_token == Secret("t")
    assert (settings.device, settings.s3_region) == ("cpu", "us-east-1")


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("GUARD_MAX_UPLOAD_BYTE", "1", "GUARD_MAX_UPLOAD_BYTES"),
        ("GUARD_NONSENSE_XYZ", "1", "docs/settings.md"),
        ("GUARD_max_upload_bytes", "1", "GUARD_MAX_UPLOAD_BYTES"),
        ("GUARD_", "1", "not a setting"),
        ("GUARD_MAX_UPLOAD_BYTES", "4GB", "an integer"),
        ("GUARD_MAX_UPLOAD_BYTES", "1.5", "an integer"),
        ("GUARD_MAX_UPLOAD_BYTES", "0", "at least 1"),
        ("GUARD_LEASE_SECONDS", "-1", "at least 1"),
        ("GUARD_LEASE_SECONDS", "nan", "at least 1"),
        ("GUARD_LEASE_SECONDS", "inf", "at least 1"),
        ("GUARD_ALLOW_UNVERSIONED", "maybe", "true or false"),
    ],
)
def test_a_misspelt_name_or_bad_value_is_refused_by_name(
    variable: str, value: str, says: str
) -> None:
    with pytest.raises(InputError, match=says) as caught:
        load_settings({variable: value})
    assert variable in caught.value.sentence


def test_a_bad_value_is_not_repeated_since_it_may_be_a_secret() -> None:
    with pytest.raises(InputError) as caught:
        load_settings({"GUARD_MAX_UPLOAD_BYTES": "hunter2"})
    assert "hunter2" not in caught.value.sentence
    assert caught.value.__cause__ is None


def test_names_that_platforms_set_are_taken_but_ours_win() -> None:
    platform = {"DATABASE_URL": "postgresql://host/a", "REDIS_URL": "redis://host"}

    assert load_settings(platform).database_url == "postgresql://host/a"
    assert load_settings(platform).redis_url == "redis://host"
    assert (
        load_settings({**platform, "GUARD_DATABASE_URL": "sqlite:///x"}).database_url
        == "sqlite:///x"
    )


def test_other_programs_variables_are_none_of_our_business() -> None:
    assert load_settings({"GUARDIAN": "x", "HOME": "/", "guard_x": "1"}) == Settings()


@pytest.mark.parametrize("show", [repr, str, "{}".format])
def test_secrets_and_passwords_in_urls_do_not_show(show: object) -> None:
    secret = Secret("hunter2")
    settings = Settings(
        s3_secret_key=secret,
        webhook_token=secret,
        webhook_hmac_key=secret,
        database_url="postgresql://u:hunter2@h/d",
        redis_url="redis://:hunter2@h",
    )

    assert callable(show)
    assert "hunter2" not in show(settings)
    assert "hunter2" not in show(settings.webhook_token)
    assert settings.webhook_token.reveal() == "hunter2"


def test_secrets_compare_by_value_and_are_false_when_empty() -> None:
    assert Secret("a") == Secret("a")
    assert Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert hash(Secret("a")) == hash(Secret("b"))
    assert not Secret()


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(FrozenInstanceError):
        Settings().device = "cpu"  # type: ignore[misc]


@pytest.mark.threat("A18")
@pytest.mark.parametrize(
    ("env", "named"),
    [
        ({"BLOB_URL": "s3://models"}, "GUARD_BLOB_URL"),
        ({"BLOB_URL": "s3://models/blobs"}, "GUARD_BLOB_URL"),
        ({"BLOB_URL": "s3://sets/b", "TRAINSET_BUCKETS": "sets"}, "GUARD_BLOB_URL"),
        ({"CHECKPOINT_BUCKET": "models"}, "GUARD_CHECKPOINT_BUCKET"),
        ({"BLOB_URL": "/x", "TORCHSERVE_STORE": "/x"}, "GUARD_BLOB_URL and GUARD_TORCHSERVE"),
        ({"BLOB_URL": "file:///x/y", "PUBLISHED_DIR": "/x"}, "GUARD_BLOB_URL and GUARD_PUBLI"),
        ({"PLUGINS": "/x/store/p", "TORCHSERVE_STORE": "/x/store"}, "GUARD_PLUGINS and GUARD_T"),
    ],
)
def test_the_guards_own_places_may_not_lie_in_each_other_or_where_others_write(
    env: dict[str, str], named: str
) -> None:
    with pytest.raises(InputError, match=named) as caught:
        load_settings({f"GUARD_{name}": value for name, value in env.items()})

    assert caught.value.code == "places_overlap"


@pytest.mark.row(30)
@pytest.mark.threat("A18")
def test_the_guards_own_copies_may_not_lie_where_uploaders_write() -> None:
    for url in ("s3://models", "s3://models/blobs"):
        with pytest.raises(InputError, match="GUARD_BLOB_URL"):
            load_settings({"GUARD_BLOB_URL": url})
    assert (
        load_settings({"GUARD_BLOB_URL": "s3://models-vetted/blobs"}).blob_url
        == "s3://models-vetted/blobs"
    )


def test_the_intake_bucket_must_be_among_the_allowed_ones() -> None:
    with pytest.raises(InputError, match="GUARD_INTAKE_BUCKETS"):
        load_settings({"GUARD_INTAKE_BUCKETS": "other"})


def test_every_setting_is_described_and_no_value_is_told() -> None:
    rows = describe()

    assert [row.name for row in rows] == [item.name for item in fields(Settings)]
    assert all(row.help and row.variable == f"GUARD_{row.name.upper()}" for row in rows)
    assert {row.name for row in rows if row.type == "secret"} == {
        "s3_secret_key",
        "smtp_password",
        "token",
        "webhook_token",
        "webhook_hmac_key",
        "otlp_headers",
        "mlflow_token",
        "oidc_client_secret",
    }
    assert {row.type for row in rows} <= {"text", "int", "float", "bool", "path", "list", "secret"}
    assert all(row.unit == "s" for row in rows if row.name.endswith("_seconds"))


@pytest.mark.threat("C18")
def test_a_scans_child_process_gets_no_setting_and_no_credential() -> None:
    given = {
        "PATH": "/bin",
        "GUARD_WEBHOOK_TOKEN": "t",
        "AWS_SECRET_ACCESS_KEY": "s",
        "DATABASE_URL": "d",
        "HOME": "/root",
    }

    child = child_environment(given)

    assert child["PATH"] == "/bin"
    assert not {"GUARD_WEBHOOK_TOKEN", "AWS_SECRET_ACCESS_KEY", "DATABASE_URL"} & set(child)
    assert child["HOME"] != "/root"


@pytest.mark.parametrize("name", packaged())
@pytest.mark.parametrize("variable", ["POLICY_FILE", "GRAPH_POLICY_FILE"])
def test_a_packaged_policy_may_be_set_by_its_name(variable: str, name: str) -> None:
    settings = load_settings({f"GUARD_{variable}": name})
    path = settings.policy_file or settings.graph_policy_file

    assert load_policy(path).digest == load_policy(Path(name)).digest
