package supervisor

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	firstPause = 100 * time.Millisecond
	longPause  = 10 * time.Second
	settled    = time.Minute // a component that ran for so long starts again without a pause
	logLimit   = 16 << 20
)

// children are all processes of this PID namespace: as process 1 we reap our own and those that lost their parent.
type children struct {
	mutex sync.Mutex
	ended map[int]chan syscall.WaitStatus
}

func newChildren() *children {
	c := &children{ended: map[int]chan syscall.WaitStatus{}}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	go func() {
		for range signals {
			c.reap()
		}
	}()
	return c
}

func (c *children) reap() {
	for {
		c.mutex.Lock() // start holds it from fork to registration
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err == syscall.EINTR {
			c.mutex.Unlock()
			continue
		}
		if err != nil || pid <= 0 {
			c.mutex.Unlock()
			return
		}
		if ended, ok := c.ended[pid]; ok {
			delete(c.ended, pid)
			ended <- status
		}
		c.mutex.Unlock()
	}
}

// start runs the part's program with both outputs appended to the log; the channel tells its end.
func (c *children) start(p part, log string) (int, <-chan syscall.WaitStatus, error) {
	if err := os.MkdirAll(filepath.Dir(log), 0o755); err != nil {
		return 0, nil, err
	}
	output, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer output.Close()
	input, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, err
	}
	defer input.Close()
	c.mutex.Lock()
	defer c.mutex.Unlock()
	pid, err := fork(p.slack, p.argv, &syscall.ProcAttr{
		Env:   p.env,
		Files: []uintptr{input.Fd(), output.Fd(), output.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, nil, fmt.Errorf("starting %s: %w", p.argv[0], err)
	}
	ended := make(chan syscall.WaitStatus, 1)
	c.ended[pid] = ended
	return pid, ended, nil
}

// fork starts a program whose timers may be late by `slack`: what inherits it is every thread of it, and every child.
func fork(slack time.Duration, argv []string, attr *syscall.ProcAttr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if slack > 0 {
		if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
			return 0, err
		}
		defer unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // this thread's own, as it was
	}
	return syscall.ForkExec(argv[0], argv, attr)
}

// part is one component: how to start it, and how to see that it answers.
type part struct {
	name  string
	argv  []string
	env   []string
	slack time.Duration // how late its timers may be
	after []string      // components that must answer first
	first func()        // done once, before the first start
	probe func() error
}

// keep starts the part when its turn has come, and again, with growing pauses, whenever it ends, until `stop`.
func keep(p part, c *children, b *board, log string, stop <-chan struct{}) {
	if !b.await(stop, running(p.after...)) {
		return
	}
	if p.first != nil {
		p.first()
	}
	pause := firstPause
	for {
		began := time.Now()
		pid, ended, err := c.start(p, log)
		if err != nil {
			b.component(p.name, func(k *Component) { k.State, k.Exit, k.PID = "crashed", err.Error(), 0 })
		} else {
			b.component(p.name, func(k *Component) { k.State, k.PID, k.Since = "starting", pid, began })
			status := follow(p, b, ended)
			b.component(p.name, func(k *Component) { k.State, k.PID, k.Exit = "crashed", 0, describe(status) })
		}
		if time.Since(began) > settled {
			pause = firstPause
		}
		select {
		case <-stop:
			b.component(p.name, func(k *Component) { k.State = "stopped" })
			return
		case <-time.After(pause):
		}
		pause = min(2*pause, longPause)
		b.component(p.name, func(k *Component) { k.Restarts++ })
	}
}

// follow probes until the part answers, then waits for its end.
func follow(p part, b *board, ended <-chan syscall.WaitStatus) syscall.WaitStatus {
	for p.probe() != nil {
		select {
		case status := <-ended:
			return status
		case <-time.After(50 * time.Millisecond):
		}
	}
	b.component(p.name, func(k *Component) { k.State = "running" })
	return <-ended
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "signal: " + status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", status.ExitStatus())
}

// trimLogs keeps each log and its predecessor below the limit. The component goes on writing to the same file.
func trimLogs(dir string, limit int64) {
	paths, _ := filepath.Glob(filepath.Join(dir, "*.log"))
	for _, path := range paths {
		info, err := os.Stat(path)
		if err != nil || info.Size() < limit {
			continue
		}
		if copyFile(path, path+".1") == nil {
			_ = os.Truncate(path, 0)
		}
	}
}

func copyFile(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := os.Create(to)
	if err != nil {
		return err
	}
	defer target.Close()
	_, err = io.Copy(target, source)
	return err
}
