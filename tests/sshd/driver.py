"""Logs in with paramiko and does what its callers do with it: python driver.py PORT KEY HOST_KEY DIRECTORY"""

import hashlib
import os
import socket
import sys
import time

import paramiko

port, key, host_key, directory = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]


def check(what, holds, *seen):
    print(("ok   " if holds else "WRONG ") + what, *([] if holds else seen))
    if not holds:
        sys.exit(1)


def client():
    ssh = paramiko.SSHClient()
    kind, encoded = open(host_key).read().split()[:2]
    entry = paramiko.hostkeys.HostKeyEntry.from_line(f"[127.0.0.1]:{port} {kind} {encoded}")
    ssh.get_host_keys().add(f"[127.0.0.1]:{port}", kind, entry.key)
    ssh.set_missing_host_key_policy(paramiko.RejectPolicy())
    ssh.connect("127.0.0.1", port, "root", pkey=paramiko.Ed25519Key.from_private_key_file(key),
                allow_agent=False, look_for_keys=False, timeout=20)
    return ssh


ssh = client()
_, out, err = ssh.exec_command("echo out; echo err >&2; exit 7", timeout=20)
check("a command", (out.read(), err.read(), out.channel.recv_exit_status()) == (b"out\n", b"err\n", 7))

data = os.urandom(1 << 20) * 20
stdin, out, _ = ssh.exec_command("sha256sum", timeout=60)
stdin.write(data)
stdin.channel.shutdown_write()
check("20 MiB to a command", out.read().split()[0].decode() == hashlib.sha256(data).hexdigest())

sftp = ssh.open_sftp()
name = os.path.join(directory, "paramiko")
with sftp.open(name, "wb") as file:
    file.set_pipelined(True)
    file.write(data)
with sftp.open(name, "rb") as file:
    file.prefetch()
    check("20 MiB by SFTP", file.read() == data)
with sftp.open(name, "ab") as file:
    file.write(b"end")
with sftp.open(name, "r+b") as file:
    file.seek(2)
    file.write(b"XY")
    file.seek(0)
    check("a file that is changed in the middle", file.read(5) == data[:2] + b"XY" + data[4:5])
check("a file's size", sftp.stat(name).st_size == len(data) + 3)
sftp.truncate(name, 10)
sftp.chmod(name, 0o600)
sftp.utime(name, (5, 6))
seen = sftp.stat(name)
check("attributes", (seen.st_size, seen.st_mode & 0o777, seen.st_atime, seen.st_mtime) == (10, 0o600, 5, 6), seen)
sftp.mkdir(name + ".dir")
sftp.symlink(name, name + ".link")
check("a link", sftp.readlink(name + ".link") == name and sftp.lstat(name + ".link").st_mode & 0o170000 == 0o120000)
sftp.rename(name, name + ".dir/moved")
check("a list", sftp.listdir(name + ".dir") == ["moved"])
try:
    sftp.rmdir(name + ".dir")
    check("a directory with files stays", False)
except OSError:
    pass
try:
    sftp.open(name + ".none")
    check("no such file", False)
except FileNotFoundError:
    pass
sftp.posix_rename(name + ".dir/moved", name + ".link")
sftp.rmdir(name + ".dir")
sftp.remove(name + ".link")
check("the working directory", sftp.normalize(".") == os.path.expanduser("~"), sftp.normalize("."))
sftp.chdir(directory)
check("another one", sftp.getcwd() == os.path.realpath(directory), sftp.getcwd())
sftp.close()

shell = ssh.invoke_shell("xterm", 100, 30)


def type_until(text, expected):
    shell.send(text)
    seen, limit = b"", time.monotonic() + 20
    while expected not in seen and time.monotonic() < limit:
        shell.settimeout(20)
        seen += shell.recv(4096)
    return expected in seen


check("a terminal", type_until("stty size\n", b"30 100"))
shell.resize_pty(132, 43)
check("another size", type_until("stty size\n", b"43 132"))
check("Ctrl-C", type_until("sleep 50; echo done-$?\n\x03", b"^C") and type_until("echo st''ill\n", b"still"))
shell.send("exit 4\n")
check("its end", shell.recv_exit_status() == 4)

listener = socket.create_server(("127.0.0.1", 0))
tunnel = ssh.get_transport().open_channel("direct-tcpip", listener.getsockname(), ("127.0.0.1", 9))
inner = listener.accept()[0]
tunnel.sendall(b"there")
inner.sendall(b"back")
check("a forwarded port", inner.recv(5) == b"there" and tunnel.recv(4) == b"back")
tunnel.close()
check("its end", inner.recv(1) == b"")

many = [ssh.exec_command(f"echo {i}")[1] for i in range(30)]
check("30 sessions at once", [out.read() for out in many] == [b"%d\n" % i for i in range(30)])
ssh.close()
