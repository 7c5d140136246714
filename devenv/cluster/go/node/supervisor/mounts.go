package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// hostDirs are paths that programs inside insist on. They must exist on the host to be mounted over;
// `down` removes those that are empty.
var hostDirs = []string{kubeletDir, "/var/lib/cni"}

// mountInside gives this process and its children a view of their own: /proc, /run, /sys, the kubelet's and the logs'
// directories. Nothing of it can be seen on the host.
func mountInside(s Settings) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("detaching from the host's mounts: %w", err)
	}
	if err := mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mountRun(s); err != nil {
		return err
	}
	if err := mountSys(); err != nil {
		return err
	}
	for from, to := range map[string]string{
		s.state("kubelet"): kubeletDir,
		s.state("cni"):     "/var/lib/cni",
		s.state("podlogs"): "/var/log",
	} {
		if err := os.MkdirAll(from, 0o755); err != nil {
			return err
		}
		if err := mount(from, to, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	if err := unix.Mount("", kubeletDir, "", unix.MS_SHARED, ""); err != nil { // mounts made in pods may propagate
		return fmt.Errorf("sharing %s: %w", kubeletDir, err)
	}
	return keepKernelSettings()
}

// mountRun hides the host's /run, but for the directory of this cluster, and puts the programs in one directory.
// They are bound, so that deleting the cache does not take them from a running cluster; but a script is linked to, as it
// looks for its libraries beside itself.
func mountRun(s Settings) error {
	own, err := unix.Open(s.Run, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", s.Run, err)
	}
	defer unix.Close(own)
	resolver, err := filepath.EvalSymlinks("/etc/resolv.conf")
	if err != nil {
		resolver = ""
	}
	programs, scripts := map[string]int{}, map[string]string{}
	for name, path := range s.Programs {
		script, err := isScript(path)
		if err != nil {
			return err
		}
		if script {
			scripts[name] = path
			continue
		}
		fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening %s: %w", path, err)
		}
		defer unix.Close(fd)
		programs[name] = fd
	}
	if err := mount("tmpfs", "/run", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	if err := bind(own, s.Run, true); err != nil {
		return err
	}
	for name, fd := range programs {
		if err := bind(fd, filepath.Join(binaries, name), false); err != nil {
			return err
		}
	}
	for name, path := range scripts {
		if err := os.Symlink(path, filepath.Join(binaries, name)); err != nil {
			return err
		}
	}
	return mountResolvConf(s, resolver)
}

func isScript(path string) (bool, error) {
	file, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	var start [2]byte
	_, err = io.ReadFull(file, start[:])
	return string(start[:]) == "#!", err
}

// mountResolvConf makes name resolution work for what runs inside but is no pod, such as pulling an image: where the
// host's file is a link into its /run, there is none here yet.
func mountResolvConf(s Settings, path string) error {
	if !strings.HasPrefix(path, "/run/") {
		return nil
	}
	return writeFile(path, []byte(s.resolvConf()), 0o644)
}

// mountSys mounts a /sys that shows our own network interfaces, with the host's cgroups under it as before.
func mountSys() error {
	own, err := unix.Open(cgroups, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("opening %s: %w", cgroups, err)
	}
	defer unix.Close(own)
	if err := mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return err
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", own), cgroups, "", unix.MS_BIND|unix.MS_REC, "")
}

// keepKernelSettings shows the kubelet the kernel settings that it wants, so that it does not change the host's.
func keepKernelSettings() error {
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		target := filepath.Join("/proc/sys", name)
		if _, err := os.Stat(target); err != nil {
			continue
		}
		shown := filepath.Join("/run/kernel", name)
		if err := writeFile(shown, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := mount(shown, target, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	return nil
}

func bind(fd int, target string, directory bool) error {
	var err error
	if directory {
		err = os.MkdirAll(target, 0o755)
	} else {
		err = writeFile(target, nil, 0o755)
	}
	if err != nil {
		return err
	}
	return mount(fmt.Sprintf("/proc/self/fd/%d", fd), target, "", unix.MS_BIND, "")
}

func mount(from, to, kind string, flags uintptr, data string) error {
	if err := unix.Mount(from, to, kind, flags, data); err != nil {
		return fmt.Errorf("mounting %s on %s: %w", from, to, err)
	}
	return nil
}

// pickSnapshotter tries whether the state directory can hold overlays; inside a container it often cannot.
func pickSnapshotter(s Settings) (string, error) {
	base := s.state("overlay-test")
	defer os.RemoveAll(base)
	for _, part := range []string{"lower", "upper", "work", "merged"} {
		if err := os.MkdirAll(filepath.Join(base, part), 0o755); err != nil {
			return "", err
		}
	}
	merged := filepath.Join(base, "merged")
	options := fmt.Sprintf("lowerdir=%[1]s/lower,upperdir=%[1]s/upper,workdir=%[1]s/work", base)
	err := unix.Mount("overlay", merged, "overlay", 0, options)
	if errors.Is(err, unix.EPERM) {
		return "", fmt.Errorf("mounting an overlay in %s: %w", base, err)
	}
	if err != nil {
		return "native", nil
	}
	return "overlayfs", unix.Unmount(merged, unix.MNT_DETACH)
}
