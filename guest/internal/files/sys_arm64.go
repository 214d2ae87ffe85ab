package files

import "syscall"

const (
	sysRenameat2 = 276
	sysSyncfs    = 267
)

// sysFstatat is fstatat(2).
const sysFstatat = syscall.SYS_FSTATAT
