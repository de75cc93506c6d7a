import logging

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from deepmerge.tracking import passwords

SECRET = "s3cret-Word"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        # Before the @, in all schemes and with whatever in it.
        (f"postgresql+psycopg://me:{SECRET}@host:5432/db", "postgresql+psycopg://me@host:5432/db"),
        (f"mysql+pymysql://me:{SECRET}@host/db?charset=utf8", "mysql+pymysql://me@host/db?charset=utf8"),
        (f"http://me:{SECRET}@host:5000", "http://me@host:5000"),
        (f"https://me:{SECRET}@host/mlflow/", "https://me@host/mlflow/"),
        (f"http://:{SECRET}@host", "http://@host"),
        (f"postgresql://me:a@{SECRET}@host/db", "postgresql://me@host/db"),
        (f"postgresql://me:a:{SECRET}@host/db", "postgresql://me@host/db"),
        (f"postgresql://me:a/{SECRET}/b@host/db", "postgresql://me@host/db"),
        (f"postgresql://me:a?{SECRET}#b@host/db", "postgresql://me@host/db"),
        (f"postgresql://me:%40%2F{SECRET}%3A@host/db", "postgresql://me@host/db"),
        # Behind the question mark.
        (f"postgresql://host/db?user=me&password={SECRET}", "postgresql://host/db?user=me"),
        (f"postgresql://host/db?password={SECRET}&user=me", "postgresql://host/db?user=me"),
        (f"postgresql://host/db?password={SECRET}", "postgresql://host/db"),
        (f"mysql://host/db?PassWd={SECRET}&a=b", "mysql://host/db?a=b"),
        (f"mysql://me@host/db?pwd={SECRET};a=b", "mysql://me@host/db?a=b"),
        (f"postgresql://host/db?sslmode=require&sslpassword={SECRET}", "postgresql://host/db?sslmode=require"),
        (f"http://host/?token={SECRET}", "http://host/"),
        (f"http://host/?access_token={SECRET}#top", "http://host/#top"),
        (f"mssql+pyodbc:///?odbc_connect=PWD%3D{SECRET}", "mssql+pyodbc:///"),
        (f"postgresql://me:{SECRET}@host/db?password={SECRET}", "postgresql://me@host/db"),
        # Nothing to hide.
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("postgresql://me:@host/db", "postgresql://me@host/db"),
        ("postgresql://host/db?connect_timeout=3", "postgresql://host/db?connect_timeout=3"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("sqlite:////tmp/a@b:c/optuna.db", "sqlite:////tmp/a@b:c/optuna.db"),
        ("sqlite:///mlflow.db", "sqlite:///mlflow.db"),
        ("models:/deepmerge-noisy@champion", "models:/deepmerge-noisy@champion"),
        ("nonsense", "nonsense"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url, shown):
    assert passwords.hidden(url) == shown
    assert passwords.hidden(shown) == shown


WORD = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
ANYTHING = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="'\"<>`&;="), min_size=4)


@settings(deadline=None, derandomize=True, max_examples=100)
@given(user=WORD, password=ANYTHING, host=WORD, path=WORD)
def test_whatever_the_password_neither_address_nor_message_shows_it(user, password, host, path):
    shown = f"postgresql://{user}@{host}/{path}"
    assume(password not in shown)
    url = f"postgresql://{user}:{password}@{host}/{path}"
    assert passwords.hidden(url) == shown == passwords.hidden(shown)
    assert passwords.scrubbed(f"no route to {url}", url) == f"no route to {shown}"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (f"postgresql://me:{SECRET}@host/db", "(Error) connection to {url} failed, tried '{url}'"),
        (f"postgresql://me:{SECRET}@host/db", f"login me/{SECRET} was refused"),
        (f"http://me:{SECRET}@host:5000", f"API request to http://me:{SECRET}@host:5000/api/2.0/x failed"),
        (f"postgresql://me:x%40{SECRET}@host/db", f"fe_sendauth: 'x@{SECRET}'"),
        (f"postgresql://me:x@{SECRET}:y@host/db", f"invalid port number: '{SECRET}:y@host'"),
        (f"postgresql://me:1/{SECRET}@host/db", f'could not translate host name "{SECRET}@host"'),
        (f"postgresql://host/db?password={SECRET}", f"invalid dsn: password={SECRET} host=host"),
        (f"postgresql://host/db?password=a+{SECRET}", f"invalid dsn: password='a {SECRET}'"),
    ],
)
def test_what_a_library_says_of_an_address_is_told_without_its_password(url, said):
    told = passwords.scrubbed(said.format(url=url), url)
    assert SECRET not in told
    assert told.split()[0] == said.split()[0]


def test_addresses_that_nobody_named_are_found_in_a_text():
    said = f"tried http://me:{SECRET}@one:5000/a, then 'postgresql://two/db?password={SECRET}'."
    assert passwords.scrubbed(said) == "tried http://me@one:5000/a, then 'postgresql://two/db'."


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_URI", "DATABASE_URL", "https_proxy"])
def test_the_addresses_of_the_environment_are_known(monkeypatch, name):
    monkeypatch.setenv(name, f"http://me:{SECRET}@host")
    assert passwords.scrubbed(f"401 for {SECRET}") == "401 for ***"


@pytest.mark.parametrize("arguments", [["--storage", "{}"], ["--storage={}"]])
def test_the_addresses_of_the_command_line_are_known(monkeypatch, arguments):
    url = f"postgresql://me:{SECRET}@host/db"
    monkeypatch.setattr("sys.argv", ["deepmerge", "tune", "noisy", *(word.format(url) for word in arguments)])
    assert passwords.scrubbed(f"no password {SECRET}") == "no password ***"


def test_a_password_that_the_address_shows_anyway_spoils_no_message():
    url = "postgresql://mlflow:mlflow@host/mlflow"
    assert passwords.scrubbed("take 'mlflow db upgrade'", url) == "take 'mlflow db upgrade'"
    assert passwords.scrubbed("a text without any", "postgresql://me:x@host/db") == "a text without any"


def test_log_lines_and_their_tracebacks_are_without_passwords():
    try:
        raise ValueError(f"at postgresql://me:{SECRET}@host")
    except ValueError as error:
        failure = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", logging.INFO, "f", 1, "to %s", (f"http://me:{SECRET}@host",), failure)
    line = passwords.Formatter("%(levelname)s %(message)s").format(record)
    assert line.startswith("INFO to http://me@host\nTraceback")
    assert SECRET not in line
