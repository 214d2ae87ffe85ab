package fileserver

import (
	"encoding/binary"
	"runtime"
	"unsafe"
)

const (
	statxBirth = 0x800
	// birthAt is where struct statx has the time of birth: seconds(8) nanoseconds(4).
	birthAt   = 80
	handleMax = 128
)

// markOf tells an object from others that have or had its inode number: by its file handle, which has a
// generation in it, or by the time of its birth. Empty where the file system has neither.
func markOf(fd int) []byte {
	// struct file_handle: size(4) type(4) bytes.
	handle := make([]byte, 8+handleMax)
	binary.NativeEndian.PutUint32(handle, handleMax)
	none := ptr("")
	defer runtime.KeepAlive(none)
	var mount int32
	_, err := call(sysNameToHandle, uintptr(fd), uintptr(unsafe.Pointer(none)), uintptr(unsafe.Pointer(&handle[0])),
		uintptr(unsafe.Pointer(&mount)), atEmptyPath)
	if size := binary.NativeEndian.Uint32(handle); err == nil && size <= handleMax {
		return handle[:8+size]
	}
	about := make([]byte, 256)
	_, err = call(sysStatx, uintptr(fd), uintptr(unsafe.Pointer(none)), atEmptyPath, statxBirth, uintptr(unsafe.Pointer(&about[0])))
	if err != nil || binary.NativeEndian.Uint32(about)&statxBirth == 0 {
		return nil
	}
	return about[birthAt : birthAt+12]
}
