package fileserver

import "syscall"

const (
	sysRenameat2     = 276
	sysCopyFileRange = 285
	sysFstatat       = syscall.SYS_FSTATAT
)
