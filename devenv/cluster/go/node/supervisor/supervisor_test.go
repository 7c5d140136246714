package supervisor

import (
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var reaper = sync.OnceValue(newChildren) // it reaps every child of the process, so there can be one only

func settings(t *testing.T) Settings {
	s := Settings{Name: "default", State: t.TempDir(), Run: t.TempDir()}
	network, err := choose(s.Name, Network{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.Network = network
	return s
}

func TestAddressesAvoidWhatTheHostUsesAndStayOtherwise(t *testing.T) {
	first, err := choose("default", Network{}, prefixes("10.244.7.0/24"))
	if err != nil || first.Pods != pods[1] || first.Services != services[0] {
		t.Fatalf("pods %s, services %s, %v", first.Pods, first.Services, err)
	}
	again, _ := choose("default", first, prefixes("192.168.0.0/24"))
	if again != first {
		t.Errorf("moved from %v to %v though nobody is in the way", first, again)
	}
	moved, _ := choose("default", first, []netip.Prefix{netip.PrefixFrom(first.Host, linkBits).Masked()})
	if moved.Node == first.Node || moved.Pods != first.Pods {
		t.Errorf("%v should have another node address and the same pods: %v", first, moved)
	}
	if _, err := choose("default", Network{}, []netip.Prefix{links}); err == nil {
		t.Error("no address is left, and yet one was found")
	}
	if first.service(10).String() != "10.96.0.10" || first.gateway().String() != "10.245.0.1" {
		t.Errorf("name server %s, gateway %s", first.service(10), first.gateway())
	}
}

func TestResolversThatOnlyTheHostReachesAreLeftOut(t *testing.T) {
	servers, search := parseResolvers("# stub\nnameserver 127.0.0.53\nnameserver 192.0.2.7\nnameserver fe80::1\nsearch a.example b.example\n")
	if !slices.Equal(servers, []string{"192.0.2.7"}) || !slices.Equal(search, []string{"a.example", "b.example"}) {
		t.Error(servers, search)
	}
}

func TestWhatIsBehindTheStubIsFound(t *testing.T) {
	files := map[string]string{
		"/etc/resolv.conf":                 "nameserver 127.0.0.53\nsearch lost.example\n",
		"/run/systemd/resolve/resolv.conf": "nameserver 192.0.2.8\nsearch kept.example\n",
	}
	servers, search := hostResolvers(func(path string) ([]byte, error) {
		if text, ok := files[path]; ok {
			return []byte(text), nil
		}
		return nil, os.ErrNotExist
	})
	if !slices.Equal(servers, []string{"192.0.2.8"}) || !slices.Equal(search, []string{"kept.example"}) {
		t.Error(servers, search)
	}
}

func TestCertificatesAreKeptUntilSomethingIsWrongWithThem(t *testing.T) {
	s, now := settings(t), time.Now()
	made := func(when time.Time) []string {
		names, err := ensureCertificates(s, when)
		if err != nil {
			t.Fatal(err)
		}
		return names
	}
	if first := made(now); len(first) != len(leaves(s))+4 {
		t.Errorf("made at first: %v", first)
	}
	if again := made(now); again != nil {
		t.Errorf("made again: %v", again)
	}
	s.Network.Node = s.Network.Node.Next()
	if moved := made(now); !slices.Equal(moved, []string{"apiserver", "kubelet-server"}) {
		t.Errorf("made for another address: %v", moved)
	}
	if err := os.WriteFile(s.pki("coredns.key"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if mended := made(now); !slices.Equal(mended, []string{"coredns"}) {
		t.Errorf("made for a broken key: %v", mended)
	}
	if late := made(now.AddDate(0, 0, leafDays-10)); len(late) != len(leaves(s)) {
		t.Errorf("made near their end: %v", late)
	}
	if late := made(now.AddDate(authorityYears, 0, -10)); !slices.Contains(late, "ca") {
		t.Errorf("made near the authorities' end: %v", late)
	}
}

func TestWhatIsWaitedForIsTheFirstThingMissing(t *testing.T) {
	up := Component{Name: "etcd", State: "running"}
	for _, row := range []struct {
		status Status
		want   string
	}{
		{Status{Components: []Component{up, {Name: "kubelet", State: "starting"}}}, "kubelet to answer"},
		{Status{Components: []Component{up, {Name: "kubelet", State: "crashed", Exit: "exit code 1"}}}, "kubelet, which ended (exit code 1) and is started again"},
		{Status{Components: []Component{up}}, "the StorageClass and the roles"},
		{Status{Components: []Component{up}, Objects: true}, "the node to be Ready"},
		{Status{Components: []Component{up}, Objects: true, NodeReady: true}, "the name server to answer"},
		{Status{Components: []Component{up}, Objects: true, NodeReady: true, DNS: true}, ""},
	} {
		if got := waitsFor(row.status); got != row.want {
			t.Errorf("%q, not %q", got, row.want)
		}
	}
}

func TestOnlyWhatTheKubeletSaidSinceTheStartCounts(t *testing.T) {
	began := time.Now()
	for heartbeat, want := range map[time.Time]bool{began.Add(-time.Minute): false, began.Add(time.Second): true} {
		var n node
		n.Status.Conditions = append(n.Status.Conditions, struct {
			Type              string    `json:"type"`
			Status            string    `json:"status"`
			LastHeartbeatTime time.Time `json:"lastHeartbeatTime"`
		}{"Ready", "True", heartbeat})
		if n.ready(began) != want {
			t.Errorf("heartbeat %s after the start: ready is %v", heartbeat.Sub(began), !want)
		}
	}
}

func TestAPartThatEndsIsStartedAgain(t *testing.T) {
	dir := t.TempDir()
	b := newBoard(filepath.Join(dir, "status.json"), Status{Components: []Component{{Name: "part"}}})
	c, stop := reaper(), make(chan struct{})
	shell := part{name: "part", argv: []string{"/bin/sh", "-c", "echo started; sleep 0.05; exit 3"}, probe: func() error { return nil }}
	go keep(shell, c, b, filepath.Join(dir, "part.log"), stop)
	deadline := make(chan struct{})
	time.AfterFunc(10*time.Second, func() { close(deadline) })
	if !b.await(deadline, func(s Status) bool { return s.Components[0].Restarts >= 2 && s.Components[0].Exit == "exit code 3" }) {
		t.Fatalf("%+v", b.status.Components[0])
	}
	close(stop)
	b.await(deadline, func(s Status) bool { return s.Components[0].State == "stopped" })
	log, err := os.ReadFile(filepath.Join(dir, "part.log"))
	if err != nil || strings.Count(string(log), "started") < 2 {
		t.Errorf("log %q, %v", log, err)
	}
	var told Status
	if err := readJSON(filepath.Join(dir, "status.json"), &told); err != nil || told.Components[0].State != "stopped" {
		t.Errorf("%+v, %v", told, err)
	}
}

func TestOnlyThePartThatMayBeLateIsLate(t *testing.T) {
	dir, c := t.TempDir(), reaper()
	for slack, want := range map[time.Duration]string{0: "50000", lateness: "25000000"} { // 50 µs is what Linux gives
		log := filepath.Join(dir, want)
		_, ended, err := c.start(part{argv: []string{"/bin/cat", "/proc/self/timerslack_ns"}, slack: slack}, log)
		if err != nil {
			t.Fatal(err)
		}
		<-ended
		if told, _ := os.ReadFile(log); strings.TrimSpace(string(told)) != want {
			t.Errorf("with a slack of %s: %q", slack, told)
		}
	}
	for _, p := range parts(settings(t), nil, nil) {
		if exact := p.name == "containerd"; exact != (p.slack == 0) {
			t.Errorf("%s may be late by %s", p.name, p.slack)
		}
	}
}

func TestAnInterfaceMayGoByItselfWhileItIsRemoved(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root makes interfaces")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with the test, and its namespace with it
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace of our own: %v", err)
	}
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "here"}, PeerName: "there"}); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("here")
	if err != nil {
		t.Fatal(err)
	}
	for _, how := range []string{"while it is there", "when it has gone"} {
		if err := removeLink(link); err != nil {
			t.Errorf("%s: %v", how, err)
		}
	}
	if _, err := netlink.LinkByName("here"); err == nil {
		t.Error("the interface is still there")
	}
}

func TestALogIsTrimmedWhileItIsWritten(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "etcd.log")
	log, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	log.WriteString("0123456789")
	trimLogs(dir, 10)
	log.WriteString("new")
	now, _ := os.ReadFile(path)
	before, _ := os.ReadFile(path + ".1")
	if string(now) != "new" || string(before) != "0123456789" {
		t.Errorf("%q, before %q", now, before)
	}
}

func TestALockIsNotTakenOnAFileThatIsGone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	first, free, err := tryLock(path)
	if err != nil || !free {
		t.Fatal(free, err)
	}
	if _, free, _ := tryLock(path); free {
		t.Error("two hold the lock")
	}
	os.Remove(path)
	if isStill(first, path) {
		t.Error("the file is gone")
	}
	second, free, err := tryLock(path)
	if err != nil || !free || second == nil {
		t.Error(free, err)
	}
}

func TestCgroupHierarchiesOfBothVersions(t *testing.T) {
	v2 := t.TempDir()
	write(t, filepath.Join(v2, "cgroup.controllers"), "cpu memory")
	v1 := t.TempDir()
	for _, name := range []string{"cpu,cpuacct", "memory"} {
		write(t, filepath.Join(v1, name, "cgroup.procs"), "")
	}
	if err := os.Symlink("cpu,cpuacct", filepath.Join(v1, "cpu")); err != nil {
		t.Fatal(err)
	}
	if found, err := hierarchies(v2); err != nil || !slices.Equal(found, []string{v2}) {
		t.Error(found, err)
	}
	found, err := hierarchies(v1)
	if err != nil || len(found) != 2 {
		t.Error(found, err)
	}
	if _, err := hierarchies(t.TempDir()); err == nil {
		t.Error("an empty directory is no hierarchy")
	}
}

func TestTheWayAComponentEndedInWords(t *testing.T) {
	if got := describe(syscall.WaitStatus(9)); got != "signal: killed" {
		t.Error(got)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}
