"""A network between hosts that are network namespaces, with loss, delay, a rate, and cuts: what tc netem would do, where the kernel has none.

    relay.py --name tilefarm-123-0 --hosts 3 --loss 0.05 --delay 0.1 --rate 10e6 --seed 7

Makes the namespaces NAME-0, NAME-1, ... with the addresses 10.99.7.1, 10.99.7.2, ..., each with one TUN device, carries IP packets between the devices, and writes "ready".
Loss is per packet; delay (seconds) and rate (bytes a second into each host) are of one direction. It reads commands, one in a line, from its standard input:

    cut 1 2    hosts 1 and 2 reach nobody, not even each other
    join       all reach all
    end

and answers the first two with themselves. At the end, or that of the input, so also when the program that started it dies, it kills what runs in the namespaces, removes them, and
writes how many packets it has carried and lost. Namespaces whose name holds the number of a process that has ended are removed at the start.

Linux, root, iproute2 and Python's standard library.
"""
import argparse
import fcntl
import heapq
import os
import random
import selectors
import signal
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
QUEUE_SECONDS = 1.0  # what a host's link holds before it drops


def ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def namespaces():
    return [line.split()[0] for line in ip("netns", "list").splitlines() if line.strip()]


def remove(name):
    pids = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True).stdout.split()
    for pid in pids:
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            pass
    subprocess.run(["ip", "netns", "del", name], capture_output=True)  # another relay may have been faster


def is_stale(name):
    parts = name.split("-")
    return len(parts) == 4 and parts[0] == "tilefarm" and parts[1].isdigit() and not os.path.exists(f"/proc/{parts[1]}")


def open_device(name, address):
    """A namespace with a TUN device of that address; what the namespace sends is read from the descriptor returned."""
    ip("netns", "add", name)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    device = fcntl.ioctl(descriptor, TUNSETIFF, struct.pack("16sH22x", b"tf%d", IFF_TUN | IFF_NO_PI))[:16].rstrip(b"\0").decode()
    ip("link", "set", device, "netns", name)
    ip("-n", name, "addr", "add", address + "/24", "dev", device)
    ip("-n", name, "link", "set", device, "up")
    ip("-n", name, "link", "set", "lo", "up")
    return descriptor


def relay(devices, options):
    dice = random.Random(options.seed)
    reader = selectors.DefaultSelector()
    for host, descriptor in enumerate(devices):
        reader.register(descriptor, selectors.EVENT_READ, host)
    reader.register(sys.stdin.fileno(), selectors.EVENT_READ, None)
    due = []  # (time, number, host, packet)
    free = [0.0] * len(devices)  # when the link into each host is idle
    cut, commands, carried, lost = set(), b"", 0, 0
    while True:
        for key, _ in reader.select(max(0.0, due[0][0] - time.monotonic()) if due else None):
            if key.data is None:
                read = os.read(key.fd, 4096)
                if not read:
                    return carried, lost
                *lines, commands = (commands + read).split(b"\n")
                for line in lines:
                    words = line.split()
                    if words == [b"end"]:
                        return carried, lost
                    cut = {int(word) for word in words[1:]} if words[:1] == [b"cut"] else set()
                    print(line.decode(), flush=True)
                continue
            now = time.monotonic()
            for _ in range(64):
                try:
                    packet = os.read(key.fd, 65536)
                except BlockingIOError:
                    break
                if packet[0] >> 4 != 4:
                    continue
                target = packet[19] - 1  # the address's last byte
                if not 0 <= target < len(devices):
                    continue
                start = max(now, free[target])
                if {key.data, target} & cut or dice.random() < options.loss or start > now + QUEUE_SECONDS:
                    lost += 1
                    continue
                free[target] = start + len(packet) / options.rate
                heapq.heappush(due, (free[target] + options.delay, carried, target, packet))
                carried += 1
        now = time.monotonic()
        while due and due[0][0] <= now:
            _, _, target, packet = heapq.heappop(due)
            try:
                os.write(devices[target], packet)
            except OSError:  # the device's queue is full
                lost += 1


parser = argparse.ArgumentParser()
parser.add_argument("--name", required=True)
parser.add_argument("--hosts", type=int, required=True)
parser.add_argument("--loss", type=float, default=0)
parser.add_argument("--delay", type=float, default=0)
parser.add_argument("--rate", type=float, default=1e9)
parser.add_argument("--seed", type=int, default=0)
options = parser.parse_args()

signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's; the end of the input is what ends this program
for name in filter(is_stale, namespaces()):
    remove(name)
made = [f"{options.name}-{host}" for host in range(options.hosts)]
try:
    devices = [open_device(name, f"10.99.7.{host + 1}") for host, name in enumerate(made)]
    print("ready", flush=True)
    carried, lost = relay(devices, options)
finally:
    for name in made:
        remove(name)
try:
    print(f"carried {carried} lost {lost}", flush=True)
except BrokenPipeError:
    pass
