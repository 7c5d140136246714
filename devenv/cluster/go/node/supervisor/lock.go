package supervisor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"
)

// ownLock is held for as long as the supervisor lives. Others hold it for a moment, to see whether it is free.
func ownLock(s Settings) (*os.File, error) {
	for range 50 {
		lock, free, err := tryLock(s.run("lock"))
		if err != nil || free {
			return lock, err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return nil, fmt.Errorf("the cluster %q runs already", s.id())
}

func tryLock(path string) (lock *os.File, free bool, err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, false, err
	}
	err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) || (err == nil && !isStill(file, path)) {
		return nil, false, file.Close()
	}
	return file, err == nil, err
}

// isStill tells whether the path leads to this very file; `down` may have removed it while we waited.
func isStill(file *os.File, path string) bool {
	ours, err := file.Stat()
	if err != nil {
		return false
	}
	there, err := os.Stat(path)
	return err == nil && os.SameFile(ours, there)
}

// waitLock locks a directory, which leaves no file behind.
func waitLock(dir string) (*os.File, error) {
	file, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	return file, syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
}
