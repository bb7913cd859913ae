package process

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// filterSyscalls closes the ways around Landlock's network rules with a seccomp filter: only TCP sockets can be made
// (Landlock before ABI 10 does not know UDP, and never MPTCP, which reaches TCP servers), named Unix sockets only where
// Landlock rules them (ABI 9), and no io_uring, which makes sockets unseen. Also denied are calls that reach into other
// processes or the kernel. A denied call gives EPERM or EACCES, the job goes on.
// Without an IPC namespace a System V segment would outlive the job and be in nobody's resident memory.
func filterSyscalls(abi int, ownIPC bool) error {
	arch, x32 := uint32(unix.AUDIT_ARCH_X86_64), true
	switch runtime.GOARCH {
	case "amd64":
	case "arm64":
		arch, x32 = unix.AUDIT_ARCH_AARCH64, false
	default:
		return fmt.Errorf("seccomp: %s is not supported", runtime.GOARCH)
	}
	const ( // offsets in struct seccomp_data, see seccomp(2); the low halves of the arguments
		nr, archAt, arg0, arg1, arg2 = 0, 4, 16, 24, 32
		allow                        = unix.SECCOMP_RET_ALLOW
	)
	deny := func(errno uint32) uint32 { return unix.SECCOMP_RET_ERRNO | errno }
	var p []unix.SockFilter
	load := func(at uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: at}) }
	ret := func(k uint32) { p = append(p, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}) }
	// unless and when put one return behind a jump: the filter has no far jumps and reads top down.
	when := func(value, result uint32) {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: value})
		ret(result)
	}
	unless := func(value, result uint32) {
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 1, K: value})
		ret(result)
	}
	load(archAt)
	unless(arch, deny(uint32(unix.EPERM)))
	load(nr)
	if x32 { // the same calls under other numbers
		p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jf: 1, K: 0x40000000})
		ret(deny(uint32(unix.EPERM)))
	}
	denied := []uint32{unix.SYS_IO_URING_SETUP, unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_BPF,
		unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL, unix.SYS_KEXEC_LOAD, unix.SYS_UNSHARE, unix.SYS_SETNS}
	if !ownIPC {
		denied = append(denied, unix.SYS_SHMGET, unix.SYS_MSGGET)
	}
	for _, call := range denied {
		when(call, deny(uint32(unix.EPERM)))
	}
	unless(unix.SYS_SOCKET, allow)
	load(arg0)
	if abi >= 9 {
		when(unix.AF_UNIX, allow)
	}
	when(unix.AF_NETLINK, allow) // only asks for interfaces, without capabilities
	p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: 2, K: unix.AF_INET})
	unless(unix.AF_INET6, deny(uint32(unix.EACCES)))
	load(arg1)
	p = append(p, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf}) // without SOCK_CLOEXEC and SOCK_NONBLOCK
	unless(unix.SOCK_STREAM, deny(uint32(unix.EACCES)))
	load(arg2)
	when(0, allow)
	unless(unix.IPPROTO_TCP, deny(uint32(unix.EACCES)))
	ret(allow)

	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	prog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	if _, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	runtime.KeepAlive(p)
	return nil
}
