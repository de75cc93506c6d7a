import pytest
import yaml

from deepmerge.config import yaml_file
from deepmerge.errors import InputError


@pytest.fixture
def read(tmp_path):
    def read(content):
        path = tmp_path / "file.yaml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return yaml_file.read(path, "settings")

    return read


@pytest.mark.parametrize(
    ("word", "value"),
    [
        *[("1e-3", 0.001), ("1E-4", 0.0001), (".5e-2", 0.005), ("1e3", 1000.0), ("-1.5E+2", -150.0), ("+.5", 0.5)],
        *[("1.", 1.0), ("0.1", 0.1), ("-3", -3), ("+3", 3), ("0", 0), ("012", 12), ("-012", -12), ("09", 9)],
        *[("0o17", 15), ("0x1F", 31), (".inf", float("inf")), ("-.INF", -float("inf")), ("1e999", float("inf"))],
        *[("true", True), ("False", False), ("null", None), ("~", None), ("", None)],
        *[
            (word, word)
            for word in ("yes", "no", "on", "Off", "y", "none", "1:30", "2024-01-01", "1_000", "0b11", "1e")
        ],
        *[("'1e-3'", "1e-3"), ('"no"', "no"), ("!!float 3", 3.0), ("!!str 1e-3", "1e-3"), ("!!int 012", 12)],
    ],
)
def test_a_word_is_what_yaml_1_2_says(read, word, value):
    for content in (f"a: {word}\n", f"a: [{word or '~'}]\n"):
        found = read(content)["a"]
        found = found[0] if isinstance(found, list) else found
        assert (found, type(found)) == (value, type(value))


def test_undefined_is_a_number(read):
    assert read("a: .nan")["a"] != read("a: .nan")["a"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa: 1\nb: {c: 2}\n",
        b"a: 1\r\nb:\r\n  c: 2\r\n",
        b"a: 1\rb: {c: 2}",
        "a: 1\nb: {c: 2}".encode("utf-16"),
    ],
    ids=["byte order mark", "windows", "old mac", "utf-16"],
)
def test_what_editors_write_is_read(read, content):
    assert read(content) == {"a": 1, "b": {"c": 2}}


def test_anchors_and_merges_that_stand_for_little_are_read(read):
    found = read("base: &base {x: 1, y: &y [1e-3]}\nother: {<<: *base, x: 2}\nthird: *y\n")
    assert found == {"base": {"x": 1, "y": [0.001]}, "other": {"x": 2, "y": [0.001]}, "third": [0.001]}


def laughs(first, line, levels=12):
    """The lines of a bomb: each stands for ten of the one before it."""
    return "\n".join([first, *(line.format(n, ", ".join([f"*a{n - 1}"] * 10)) for n in range(1, levels))])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "should hold settings, got nothing"),
        ("# nothing\n", "should hold settings, got nothing"),
        ("- a\n", r"should hold settings, got \['a'\]"),
        ("text", "should hold settings, got 'text'"),
        ("a: 1\n---\nb: 2\n", "line 2: .*expected a single document"),
        ("a: 1\nb: [c", "line 2: should be YAML, but: while parsing a flow sequence"),
        ("a: 1\nb: 'c\n", "should be YAML"),
        ("a:\n\tb: 1\n", r"line 2: .*'\\t'.*; YAML is indented with spaces, not tabs"),
        ("a: 1\nb: 2\na: 3\n", "line 3: .*the key 'a' stands in line 1 too; keep one"),
        ("t:\n  a: 1\n  'a': 2\n", "line 3: .*the key 'a' stands in line 2 too"),
        ("t: {a: 1, b: {c: 1, c: 1}}", "the key 'c' stands in line 1 too"),
        ("t: &t {a: 1}\nu:\n  <<: *t\n  <<: *t\n", "line 4: .*the key '<<' stands in line 3 too"),
        ("a: {low: 0,5}", "keys should be names, got '5'"),
        ("1: a", "keys should be names, got '1'"),
        ("true: a", "keys should be names, got 'true'"),
        ("? [a]\n: 1", "keys should be names, got a list or a mapping"),
        ("a: *b", "line 1: .*undefined alias 'b'"),
        ("a: &a [*a]", "line 1: .*an anchor should not hold itself"),
        ("a: &a {b: {c: *a}}", "line 1: .*an anchor should not hold itself"),
        ("a: &a {<<: *a}", "an anchor should not hold itself"),
        (laughs("a0: &a0 [x, x]", "a{0}: &a{0} [{1}]"), "aliases should not stand for so much"),
        (laughs("a0: &a0 {x: 1}", "a{0}: &a{0} {{<<: [{1}]}}"), "aliases should not stand for so much"),
        (laughs("a0: &a0 x", "a{0}: &a{0} {{b: [{1}]}}"), "aliases should not stand for so much"),
        ("a: &a " + "x" * 50_000 + "\nb: [" + "*a, " * 100 + "]", "line 2: .*aliases should not stand for so much"),
        (
            "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 3000)),
            "line 20: .*stand for so much",
        ),
        ("a: " + "[" * 40_000, "line 1: .*settings should lie within 20 levels"),
        ("a: " + "{b: " * 5000 + "1" + "}" * 5000, "settings should lie within 20 levels"),
        ("\n".join(f"{' ' * n}a:" for n in range(300)), "line 20: .*settings should lie within 20 levels"),
        ("a: " + "x" * 200_000, "at most 100000 bytes, got a larger one"),
        ("a: " + "9" * 5000, "line 1: .*should be a whole number, got '9+…"),
        ("a: !!int x", "should be a whole number, got 'x'"),
        ("a: !!float x", "should be a number, got 'x'"),
        ("a: !!python/object/apply:os.system ['true']", "line 1: .*could not determine a constructor"),
        ("a: !!timestamp 2024-01-01", "could not determine a constructor"),
        ("a: !mine 1", "could not determine a constructor for the tag '!mine'"),
        ("a: 1\nb: \0\n", "line 2: should be text, got the character 0x0"),
        (b"a: 1\nb: caf\xe9\n", "line 2: should be text in UTF-8, got the byte 0xe9"),
        (b"\x93NUMPY\x01\x00", "line 1: should be text in UTF-8"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_file_and_line(read, content, said):
    with pytest.raises(InputError, match=said) as error:
        read(content)
    message = str(error.value)
    assert "file.yaml" in message
    assert "\n" not in message
    assert len(message) < 700


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(InputError, match="should be a file that can be read, but: "):
        yaml_file.read(tmp_path, "settings")


def test_what_is_written_reads_the_same_by_either_version_of_yaml(read):
    content = {
        "a": {"b": 1e-05, "c": [1, True, None]},
        "texts": ["1e-3", "012", "0o7", "yes", "1:30", "null", "=", "a b"],
    }
    text = yaml_file.written(content)
    assert read(text) == yaml.safe_load(text) == content
    assert list(read(text)["a"]) == ["b", "c"]
    shared = [1]
    assert "*" not in yaml_file.written({"a": shared, "b": shared})
