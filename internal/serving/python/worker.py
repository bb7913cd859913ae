"""The Python side of falaj's worker: loads one model and answers frames on the socket it inherited.

A frame is a little-endian uint32 length and that many bytes. First the server sends JSON {flavor, path, features, tmp, memory};
the worker answers JSON {ok, features, isolation} or {error}. Then the server sends uint32 rows, uint32 columns and the
float64 values row by row; the worker answers a zero byte, uint32 rows, uint32 outputs and the values, or a one byte and
the text of the exception. When the server's end closes, the worker ends.
"""
import ctypes, json, os, resource, select, socket, struct, sys, threading

sock = socket.socket(fileno=int(sys.argv[1]))
os.dup2(2, 1)  # whatever a library prints goes to the log, not into the void


def read(n):
    buf = bytearray(n)
    view = memoryview(buf)
    while n:
        got = sock.recv_into(view)
        if not got:
            os._exit(0)
        view, n = view[got:], n - got
    return buf


def read_frame():
    return read(struct.unpack("<I", read(4))[0])


def write_frame(*parts):
    sock.sendall(struct.pack("<I", sum(len(p) for p in parts)) + b"".join(parts))


def watch():
    """Ends the process when the server dies, also while a model computes."""
    p = select.poll()
    p.register(sock.fileno(), 0)
    p.poll()
    os._exit(0)


def isolate(readable, writable):
    """Landlock: before any model code runs, this process may read its interpreter and its model, write its own
    temporary folder, and open no TCP connection. It needs no privilege; what it restricts cannot be undone."""
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(444, None, 0, 1)
    if abi < 1:
        return "none: the kernel has no Landlock"
    execute, write_file, read_file, read_dir = 1, 2, 4, 8
    every = (1 << 13) - 1
    if abi >= 2:
        every |= 1 << 13  # refer
    if abi >= 3:
        every |= 1 << 14  # truncate
    attr = struct.pack("<QQ", every, 3 if abi >= 4 else 0)  # the second word: bind and connect TCP
    ruleset = libc.syscall(444, attr, ctypes.c_size_t(16 if abi >= 4 else 8), 0)
    if ruleset < 0:
        return "none: " + os.strerror(ctypes.get_errno())
    rules = [(p, execute | read_file | read_dir) for p in readable] + [(p, every) for p in writable]
    rules += [(p, read_file | write_file) for p in ("/dev/null", "/dev/urandom")]
    for path, access in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        if not os.path.isdir(path):
            access &= execute | read_file | write_file | (every & 1 << 14)
        libc.syscall(445, ruleset, 1, struct.pack("<Qi", access, fd), 0)
        os.close(fd)
    if libc.prctl(38, 1, 0, 0, 0) != 0 or libc.syscall(446, ruleset, 0) != 0:
        return "none: " + os.strerror(ctypes.get_errno())
    os.close(ruleset)
    return "landlock %d" % abi


def load(conf):
    import numpy as np

    if conf["flavor"] == "lightgbm":
        import lightgbm

        model = lightgbm.Booster(model_file=conf["path"])
        threads = int(os.environ["OMP_NUM_THREADS"])
        return model.feature_name(), lambda x: model.predict(x, num_threads=threads)

    import mlflow.pyfunc, pandas

    model = mlflow.pyfunc.load_model(conf["path"])
    schema = model.metadata.get_input_schema() if model.metadata is not None else None
    names, casts = conf["features"] or None, {}
    if schema is not None and schema.has_input_names():
        names = [c.name for c in schema.inputs]
        whole = {"integer": "int32", "long": "int64", "boolean": "bool", "float": "float32", "double": "float64"}
        for c in schema.inputs:
            kind = getattr(getattr(c, "type", None), "name", "")
            if kind not in whole:
                raise TypeError("column %r of the signature has the type %r; falaj serves numbers" % (c.name, kind))
            casts[c.name] = whole[kind]

    def predict(x):
        if names is None:
            return model.predict(x)
        if x.shape[1] != len(names):
            raise ValueError("%d columns, the model takes %d" % (x.shape[1], len(names)))
        frame = pandas.DataFrame(x, columns=names)
        for name, kind in casts.items():
            if kind in ("int32", "int64", "bool"):
                v = frame[name]
                if not (v == np.floor(v)).all():
                    raise ValueError("column %r is an integer in the model's signature and got a missing value or a fraction" % name)
            if kind != "float64":
                frame[name] = frame[name].astype(kind)
        return model.predict(frame)

    return names, predict


def matrix(y, rows):
    """Whatever a model returns, as rows x outputs float64."""
    import numpy as np

    a = np.asarray(y.to_numpy() if hasattr(y, "to_numpy") else y, dtype=np.float64)
    if a.ndim == 1:
        a = a.reshape(-1, 1)
    if a.ndim != 2 or a.shape[0] != rows:
        raise ValueError("the model answered %d rows with an array of shape %s" % (rows, a.shape))
    return np.ascontiguousarray(a)


def say(e):
    return ("%s: %s" % (type(e).__name__, e))[:2000].encode("utf-8", "replace")


conf = json.loads(read_frame())
threading.Thread(target=watch, daemon=True).start()
try:
    if conf["memory"]:
        resource.setrlimit(resource.RLIMIT_DATA, (conf["memory"], conf["memory"]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    here = [sys.prefix, sys.base_prefix, sys.exec_prefix, "/usr", "/lib", "/lib64", "/etc", "/proc", "/sys/devices/system/cpu", "/sys/fs/cgroup", conf["path"]]
    isolation = isolate(here, [conf["tmp"]])
    names, predict = load(conf)
    import numpy as np
except BaseException as e:
    write_frame(json.dumps({"error": say(e).decode()}).encode())
    os._exit(1)
write_frame(json.dumps({"ok": True, "features": names, "isolation": isolation}).encode())

while True:
    frame = read_frame()
    rows, columns = struct.unpack_from("<II", frame)
    try:
        x = np.frombuffer(frame, dtype="<f8", offset=8).reshape(rows, columns)
        y = matrix(predict(x), rows)
        write_frame(b"\0", struct.pack("<II", *y.shape), y.tobytes())
    except Exception as e:
        write_frame(b"\1", say(e))
