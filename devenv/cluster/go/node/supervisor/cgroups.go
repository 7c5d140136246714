package supervisor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	cgroups = "/sys/fs/cgroup"
	killed  = 20 * time.Second // a busy machine may take so long to end what was killed
)

// hierarchies are the directories that our cgroup is made in: each controller's under cgroup v1, the only one under v2.
func hierarchies(root string) ([]string, error) {
	if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err == nil {
		return []string{root}, nil
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("looking for cgroups: %w", err)
	}
	var found []string
	seen := map[string]bool{}
	for _, entry := range entries {
		// cpu and cpuacct may be links to cpu,cpuacct
		path, err := filepath.EvalSymlinks(filepath.Join(root, entry.Name()))
		if err != nil || seen[path] {
			continue
		}
		if _, err := os.Stat(filepath.Join(path, "cgroup.procs")); err == nil {
			seen[path] = true
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("%s holds no cgroup hierarchy", root)
	}
	return found, nil
}

// enterCgroup makes our cgroup in every hierarchy and moves this process into its part `system`.
// The kubelet puts the pods beside it, so that all of the cluster is below one name.
func enterCgroup(name string) error {
	roots, err := hierarchies(cgroups)
	if err != nil {
		return err
	}
	for _, root := range roots {
		own := filepath.Join(root, name)
		if err := share(root); err != nil {
			return err
		}
		for _, path := range []string{own, filepath.Join(own, "system")} {
			if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
				return fmt.Errorf("making the cgroup %s: %w", path, err)
			}
			if err := inheritCPUs(path); err != nil {
				return err
			}
			if path == own {
				if err := share(own); err != nil {
					return err
				}
			}
		}
		procs := filepath.Join(own, "system", "cgroup.procs")
		if err := os.WriteFile(procs, []byte("0"), 0o644); err != nil {
			return fmt.Errorf("moving into the cgroup %s: %w", own, err)
		}
	}
	return nil
}

// share passes every controller on to the cgroups below (cgroup v2 only).
func share(path string) error {
	text, err := os.ReadFile(filepath.Join(path, "cgroup.controllers"))
	if err != nil {
		return nil // cgroup v1
	}
	var wanted []string
	for _, controller := range strings.Fields(string(text)) {
		wanted = append(wanted, "+"+controller)
	}
	if len(wanted) == 0 {
		return nil
	}
	control := filepath.Join(path, "cgroup.subtree_control")
	err = os.WriteFile(control, []byte(strings.Join(wanted, " ")), 0o644)
	if errors.Is(err, syscall.EBUSY) { // inside a container the root may hold processes itself, which v2 forbids
		if err := moveProcesses(path, filepath.Join(path, "devenv-host")); err != nil {
			return err
		}
		err = os.WriteFile(control, []byte(strings.Join(wanted, " ")), 0o644)
	}
	if err != nil {
		return fmt.Errorf("sharing %s in %s: %w", text, path, err)
	}
	return nil
}

func moveProcesses(from, to string) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(from, "cgroup.procs"))
	if err != nil {
		return err
	}
	for _, pid := range strings.Fields(string(text)) {
		err := os.WriteFile(filepath.Join(to, "cgroup.procs"), []byte(pid), 0o644)
		if err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("moving process %s into %s: %w", pid, to, err)
		}
	}
	return nil
}

// inheritCPUs fills in what an empty cpuset of cgroup v1 lacks: no process may enter without.
func inheritCPUs(path string) error {
	for _, name := range []string{"cpuset.cpus", "cpuset.mems"} {
		text, err := os.ReadFile(filepath.Join(path, name))
		if err != nil || strings.TrimSpace(string(text)) != "" {
			continue
		}
		if _, err := os.Stat(filepath.Join(path, "cgroup.controllers")); err == nil {
			continue // cgroup v2 inherits by itself
		}
		text, err = os.ReadFile(filepath.Join(filepath.Dir(path), name))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(path, name), text, 0o644); err != nil {
			return fmt.Errorf("filling in %s of %s: %w", name, path, err)
		}
	}
	return nil
}

// removeCgroup removes the tree in every hierarchy, deepest first. What still runs in it is killed.
func removeCgroup(name string) error {
	roots, err := hierarchies(cgroups)
	if err != nil {
		return nil // no cgroups, nothing to remove
	}
	for _, root := range roots {
		own := filepath.Join(root, name)
		for deadline := time.Now().Add(killed); ; time.Sleep(10 * time.Millisecond) {
			err := removeTree(own)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				return fmt.Errorf("removing the cgroup %s: %w", own, err)
			}
		}
	}
	return nil
}

func removeTree(path string) error {
	entries, err := os.ReadDir(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if entry.IsDir() {
			if err := removeTree(filepath.Join(path, entry.Name())); err != nil {
				return err
			}
		}
	}
	if text, err := os.ReadFile(filepath.Join(path, "cgroup.procs")); err == nil {
		for _, word := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(word); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
	return os.Remove(path)
}
