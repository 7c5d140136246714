package supervisor

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// File descriptors that the launcher hands over: it says when our network is there, we say when we are set up, and the
// lock is held for as long as we live.
const (
	fromLauncher = 3
	toLauncher   = 4
	theLock      = 5
)

// Init is process 1 of the cluster: it sets up, tells the launcher, and then keeps the components running.
func Init(args []string) error {
	if len(args) != 1 {
		return errors.New("init is started by up")
	}
	var s Settings
	if err := readJSON(args[0], &s); err != nil {
		return err
	}
	for _, fd := range []int{fromLauncher, toLauncher, theLock} {
		unix.CloseOnExec(fd) // for us alone
	}
	launcher := os.NewFile(toLauncher, "launcher")
	ready, err := setUp(s)
	if err != nil {
		fmt.Fprintln(launcher, err)
		return err
	}
	fmt.Fprintln(launcher, "ok")
	launcher.Close()
	return ready.serve()
}

type supervisor struct {
	settings Settings
	mended   []string
	hostRun  *os.Root
}

// setUp does everything that can fail for good; nothing runs yet.
func setUp(s Settings) (supervisor, error) {
	line, err := bufio.NewReader(os.NewFile(fromLauncher, "launcher")).ReadString('\n')
	if err != nil || line != "go\n" {
		return supervisor{}, errors.New("the launcher gave up")
	}
	if err := unix.Sethostname([]byte(s.Node())); err != nil {
		return supervisor{}, fmt.Errorf("setting the host name: %w", err)
	}
	if err := enterCgroup(s.cgroup()); err != nil {
		return supervisor{}, err
	}
	hostRun, err := os.OpenRoot("/run")
	if err != nil {
		return supervisor{}, err
	}
	if err := mountInside(s); err != nil {
		return supervisor{}, err
	}
	if err := joinInside(s); err != nil {
		return supervisor{}, err
	}
	snapshotter, err := pickSnapshotter(s)
	if err != nil {
		return supervisor{}, err
	}
	made, err := ensureCertificates(s, time.Now())
	if err != nil {
		return supervisor{}, fmt.Errorf("making certificates: %w", err)
	}
	if err := os.MkdirAll(s.state("volumes"), 0o700); err != nil {
		return supervisor{}, err
	}
	return supervisor{s, made, hostRun}, writeConfigs(s, snapshotter)
}

// serve starts every component and returns when it was told to end and all is ended.
func (v supervisor) serve() error {
	s := v.settings
	began := time.Now()
	client, err := adminClient(s)
	if err != nil {
		return err
	}
	all := parts(s, client, anyClient())
	if s.Simulated > 0 {
		all = append(all, simulatedPart(s, client))
	}
	first := Status{
		Name: s.Name, Phase: "starting", Since: began, Version: Version, Server: s.server(), Node: s.Node(),
		Mended: v.mended, Programs: s.Programs, Simulated: s.Simulated,
	}
	for _, p := range all {
		first.Components = append(first.Components, Component{Name: p.name, State: "waiting", Since: began, Log: s.log(p.name)})
	}
	b := newBoard(s.run("status.json"), first)
	c := newChildren()
	orders := make(chan os.Signal, 1)
	signal.Notify(orders, syscall.SIGTERM, syscall.SIGINT)

	stop := make(chan struct{})
	var group sync.WaitGroup
	for _, p := range all {
		group.Go(func() { keep(p, c, b, s.log(p.name), stop) })
	}
	group.Go(func() {
		if b.await(stop, running("kube-apiserver")) {
			applyObjects(s, client, b, stop)
		}
	})
	go watchNode(s, client, b, began, stop)
	go watchDNS(s, b, stop)
	go logPhases(b, stop)
	go followResolvers(s, v.hostRun, b, stop)
	go func() {
		for pause(stop, time.Minute) {
			trimLogs(s.state("logs"), logLimit)
		}
	}()

	<-orders
	shutDown(s, b, stop)
	return nil
}

func logPhases(b *board, stop <-chan struct{}) {
	last := ""
	b.await(stop, func(s Status) bool {
		if text := strings.TrimSuffix(s.Phase+": waiting for "+s.Waiting, ": waiting for "); text != last {
			last = text
			say("%s", text)
		}
		return false
	})
}

// shutDown ends the kubelet first, so that it starts nothing again, then the containers, then what keeps data.
// The rest is stateless and ends with this process.
func shutDown(s Settings, b *board, stop chan struct{}) {
	tell := func(text string) { b.update(func(k *Status) { k.Phase, k.Waiting = "stopping", text }) }
	tell("the containers to end")
	close(stop)
	end := func(signal syscall.Signal, names ...string) { signalParts(b, signal, names) }
	end(syscall.SIGKILL, "kubelet")
	if err := stopContainers(s, tell); err != nil {
		say("%v", err)
	}
	tell("etcd to end")
	end(syscall.SIGKILL, "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "coredns", "controllers", "simulate")
	end(syscall.SIGTERM, "etcd", "containerd")
	deadline := make(chan struct{})
	time.AfterFunc(5*time.Second, func() { close(deadline) })
	b.await(deadline, func(k Status) bool {
		return !slices.ContainsFunc(k.Components, func(c Component) bool { return c.PID != 0 })
	})
	tell("the host to be tidied up")
	say("ended")
}

func signalParts(b *board, signal syscall.Signal, names []string) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	for _, c := range b.status.Components {
		if c.PID != 0 && slices.Contains(names, c.Name) {
			_ = syscall.Kill(c.PID, signal)
		}
	}
}
