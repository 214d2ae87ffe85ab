package fileserver

import "syscall"

const (
	sysRenameat2     = 276
	sysCopyFileRange = 285
	sysNameToHandle  = 264
	sysStatx         = 291
	sysFstatat       = syscall.SYS_FSTATAT
)
