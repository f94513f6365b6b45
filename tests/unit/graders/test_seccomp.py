"""The filter of system calls, run as the kernel runs it, for every machine that it is written for."""

import errno
import struct

import pytest

from tunesmith.graders.sandbox import kernel, seccomp

ALLOWED, KILLED, REFUSED = 0x7FFF0000, 0x80000000, 0x00050000
PID = 7
ADDRESS = 1 << 40  # its lower half is nought
THREAD = 0x3D0F00  # what the C library gives a new thread
UNIX, INET, STREAM, DGRAM, SEQPACKET = 1, 2, 1, 2, 5
CLOEXEC = 0o2000000

pytestmark = pytest.mark.parametrize("machine", sorted(seccomp.MACHINES))


class Filter:
    """A program and the data that it is asked about."""

    def __init__(self, machine: str, *, scratch: bool = True) -> None:
        program = seccomp.program(PID, scratch=scratch, machine=machine)
        self.steps = [struct.unpack_from("HBBI", program, place) for place in range(0, len(program), 8)]
        self.audit, self.numbers = seccomp.MACHINES[machine]

    def call(self, name: str, *arguments: int) -> int:
        return self.answer(self.numbers[name], *arguments)

    def answer(self, number: int, *arguments: int, audit: int | None = None) -> int:
        words = [*arguments, 0, 0, 0, 0, 0, 0][:6]
        data = struct.pack("<IIQ6Q", number, self.audit if audit is None else audit, 0, *words)
        held, place = 0, 0
        while True:
            code, if_true, if_false, operand = self.steps[place]
            place += 1
            match code:
                case 0x20:
                    (held,) = struct.unpack_from("<I", data, operand)
                case 0x54:
                    held &= operand
                case 0x05:
                    place += operand
                case 0x06:
                    return operand
                case _:
                    holds = {0x15: held == operand, 0x35: held >= operand, 0x45: bool(held & operand)}[code]
                    place += if_true if holds else if_false


@pytest.mark.parametrize("scratch", [True, False])
def test_what_is_not_on_the_list_is_refused_whatever_its_number(machine: str, scratch: bool) -> None:
    asked = Filter(machine, scratch=scratch)
    free = (*seccomp._FREE, *(seccomp._OF_SCRATCH if scratch else ()))
    known = {asked.numbers[name] for name in free if name in asked.numbers}
    looked_at = {asked.numbers[name] for name in seccomp._LOOKED_AT}
    for number in range(1200):
        if number not in looked_at:
            assert asked.answer(number) == (ALLOWED if number in known else REFUSED | errno.EPERM), number


@pytest.mark.parametrize(
    "name",
    ["socket", "connect", "execve", "execveat", "fork", "vfork", "kill", "ptrace", "memfd_create", "io_uring_setup", "bpf",
     "keyctl", "mount", "unshare", "setns", "openat2", "process_vm_readv", "pidfd_open", "userfaultfd", "perf_event_open"],
)  # fmt: skip
def test_these_are_on_no_machine_s_list(machine: str, name: str) -> None:
    assert name not in seccomp.MACHINES[machine].numbers


def test_calls_of_another_machine_s_form_end_the_process(machine: str) -> None:
    asked = Filter(machine)
    others = {one.audit for one in seccomp.MACHINES.values()} - {asked.audit} | {0x40000003, 0x40000028}
    assert {asked.answer(asked.numbers["read"], audit=audit) for audit in others} == {KILLED}
    x32 = asked.answer(0x40000000 | asked.numbers["read"])
    assert x32 == (KILLED if machine == "x86_64" else REFUSED | errno.EPERM)


def test_new_processes_are_threads_in_the_same_namespaces(machine: str) -> None:
    asked = Filter(machine)
    assert asked.call("clone", THREAD) == ALLOWED
    assert asked.call("clone", 17) == REFUSED | errno.EPERM
    for flag in (kernel.CLONE_NEWUSER, kernel.CLONE_NEWNS, kernel.CLONE_NEWPID, kernel.CLONE_NEWNET, kernel.CLONE_NEWIPC):
        assert asked.call("clone", THREAD | flag) == REFUSED | errno.EPERM
    assert asked.call("clone3", ADDRESS, 88) == REFUSED | errno.ENOSYS


def test_it_may_signal_itself_alone(machine: str) -> None:
    asked = Filter(machine)
    assert asked.call("tgkill", PID, PID, 6) == ALLOWED
    assert {asked.call("tgkill", pid, pid, 9) for pid in (1, PID + 1, 0)} == {REFUSED | errno.EPERM}


def test_pairs_are_of_streams_and_nothing_is_sent_to_an_address(machine: str) -> None:
    asked = Filter(machine)
    assert asked.call("socketpair", UNIX, STREAM | CLOEXEC) == ALLOWED
    for family, kind in ((UNIX, DGRAM), (UNIX, SEQPACKET), (INET, STREAM), (UNIX, DGRAM | CLOEXEC), (40, STREAM)):
        assert asked.call("socketpair", family, kind) == REFUSED | errno.EACCES
    assert asked.call("sendto", 3, 1, 1, 0, 0) == ALLOWED
    for address in (ADDRESS, ADDRESS + 8, 8):
        assert asked.call("sendto", 3, 1, 1, 0, address) == REFUSED | errno.EACCES


def test_of_calls_with_many_uses_a_few_are_allowed(machine: str) -> None:
    asked = Filter(machine)
    for name, place, fine, wrong in (
        ("fcntl", 1, (0, 1, 2, 3, 4, 1030), {8, 10, 1031, 1033}),
        ("ioctl", 1, (0x5401, 0x541B), {0x5412, 0x540E, 0x8912}),
        ("prctl", 0, (15, 16), {4, 8, 22, 38}),
        ("prlimit64", 0, (0,), {1, PID}),
    ):
        assert {asked.call(name, *[0] * place, value) for value in fine} == {ALLOWED}, name
        assert all(asked.call(name, *[0] * place, value) & 0xFFFF0000 == REFUSED for value in wrong), name
    assert asked.call("fcntl", 3, 6) == REFUSED  # a lock is said to be had, and is not


def test_files_are_made_and_changed_only_where_there_is_a_place_for_them(machine: str) -> None:
    for name in seccomp._OF_SCRATCH:
        if name in seccomp.MACHINES[machine].numbers:
            assert Filter(machine, scratch=True).call(name) == ALLOWED
            assert Filter(machine, scratch=False).call(name) == REFUSED | errno.EPERM
