package supervisor

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Up starts the supervisor in namespaces of its own, and returns when it is set up; its components come up after that.
// What an earlier one left behind is removed first.
func Up([]string) error {
	var s Settings
	if err := json.NewDecoder(os.Stdin).Decode(&s); err != nil {
		return fmt.Errorf("reading the settings: %w", err)
	}
	for _, dir := range append([]string{s.Run, s.state("logs")}, hostDirs...) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := os.Chmod(s.State, 0o700); err != nil { // inside are keys, and volumes that anyone may write to
		return err
	}
	lock, err := ownLock(s)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := removeRest(s); err != nil {
		return err
	}
	return launch(s, lock)
}

// launch starts process 1 and gives it its network.
func launch(s Settings, lock *os.File) error {
	placing, err := waitLock(filepath.Dir(s.Run)) // no two choose the same addresses
	if err != nil {
		return err
	}
	defer placing.Close()
	if err := place(&s); err != nil {
		return err
	}
	if err := writeJSON(s.run("settings.json"), s); err != nil {
		return err
	}
	log, err := os.OpenFile(s.log("supervisor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	toChild, goAhead, err := os.Pipe()
	if err != nil {
		return err
	}
	answer, fromChild, err := os.Pipe()
	if err != nil {
		return err
	}
	child := exec.Command(s.Programs["devenv-node"], "init", s.run("settings.json"))
	child.Dir, child.Env = "/", environment()
	child.Stdout, child.Stderr = log, log
	child.ExtraFiles = []*os.File{toChild, fromChild, lock}
	child.SysProcAttr = &syscall.SysProcAttr{
		Setsid: true,
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWNET |
			syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC,
	}
	if err := child.Start(); err != nil {
		return fmt.Errorf("starting the supervisor in namespaces of its own: %w", err)
	}
	toChild.Close()
	fromChild.Close()
	err = joinHost(s, child.Process.Pid)
	if err == nil {
		err = writeFile(s.run("pid"), []byte(strconv.Itoa(child.Process.Pid)), 0o644)
	}
	if err == nil {
		fmt.Fprintln(goAhead, "go")
		err = readAnswer(answer)
	}
	if err != nil {
		_ = child.Process.Kill()
		_, _ = child.Process.Wait()
		_ = removeRest(s)
	}
	return err
}

func readAnswer(answer *os.File) error {
	line, err := bufio.NewReader(answer).ReadString('\n')
	if err != nil {
		return errors.New("the supervisor ended while it was setting up")
	}
	if line = strings.TrimSpace(line); line != "ok" {
		return errors.New(line)
	}
	return nil
}

// place fills in the addresses and the name servers, and remembers the addresses for the next time.
func place(s *Settings) error {
	var kept Network
	if err := readJSON(s.state("network.json"), &kept); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	used, mtu, err := hostUses()
	if err != nil {
		return err
	}
	if s.Network, err = choose(s.id(), kept, used); err != nil {
		return err
	}
	s.Network.MTU = mtu
	s.Resolvers, s.Search = hostResolvers(os.ReadFile)
	return writeJSON(s.state("network.json"), s.Network)
}

// Down ends the supervisor and returns when nothing of it is left but its state. It prints what it waits for.
func Down(args []string) error {
	flags := flag.NewFlagSet("down", flag.ContinueOnError)
	run := flags.String("run", "", "the cluster's directory below /run")
	nftProgram := flags.String("nft", "nft", "the nft program, where the settings are lost")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := Settings{Run: *run, Programs: map[string]string{"nft": *nftProgram}}
	var known Settings
	if readJSON(s.run("settings.json"), &known) == nil {
		s = known
		s.Programs["nft"] = *nftProgram
	}
	if err := os.MkdirAll(s.Run, 0o755); err != nil {
		return err
	}
	lock, err := endSupervisor(s, 40*time.Second)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := removeRest(s); err != nil {
		return err
	}
	if err := os.RemoveAll(s.Run); err != nil {
		return err
	}
	return leaveMachine(filepath.Dir(s.Run))
}

// leaveMachine undoes what all clusters share, when the last of them is down.
func leaveMachine(dir string) error {
	lock, err := waitLock(dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	entries, err := os.ReadDir(dir)
	if err != nil || slices.ContainsFunc(entries, fs.DirEntry.IsDir) {
		return err
	}
	for _, dir := range hostDirs {
		_ = os.Remove(dir) // if empty. While another cluster runs, this would take away what is mounted there
	}
	if err := restoreForwarding(dir); err != nil {
		return err
	}
	return os.Remove(dir)
}

// endSupervisor asks it to end, kills it when it takes too long, and returns the lock that it held.
func endSupervisor(s Settings, patience time.Duration) (*os.File, error) {
	asked, last := false, ""
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		lock, free, err := tryLock(s.run("lock"))
		if err != nil || free {
			return lock, err
		}
		pid, err := readPID(s)
		if err != nil {
			return nil, err
		}
		signal := syscall.SIGTERM
		if time.Now().After(deadline) {
			signal = syscall.SIGKILL
		}
		if !asked || signal == syscall.SIGKILL {
			if err := syscall.Kill(pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
				return nil, fmt.Errorf("ending process %d: %w", pid, err)
			}
			asked = true
		}
		var status Status
		if readJSON(s.run("status.json"), &status) == nil && status.Phase == "stopping" && status.Waiting != last {
			last = status.Waiting
			fmt.Println(last)
		}
	}
}

func readPID(s Settings) (int, error) {
	text, err := os.ReadFile(s.run("pid"))
	if err != nil {
		return 0, fmt.Errorf("the cluster %q is being started or stopped by another process", s.id())
	}
	return strconv.Atoi(strings.TrimSpace(string(text)))
}

// removeRest removes what a supervisor leaves on the host when it ends, however it ended.
func removeRest(s Settings) error {
	if err := leaveHost(s); err != nil {
		return err
	}
	if err := removeCgroup(s.cgroup()); err != nil {
		return err
	}
	for _, name := range []string{"status.json", "settings.json", "pid", "containerd.sock"} {
		if err := os.Remove(s.run(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
