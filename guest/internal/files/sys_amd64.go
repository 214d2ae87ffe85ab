package files

import "syscall"

const (
	sysRenameat2 = 316
	sysSyncfs    = 306
)

// sysFstatat is fstatat(2).
const sysFstatat = syscall.SYS_NEWFSTATAT
