// Package supervisor starts a Kubernetes node in namespaces of its own, keeps it running, and ends it.
//
// Two processes take part. The launcher (`up`, `down`) runs on the host and is short-lived: it makes the host's end of
// the network, and removes it. The supervisor (`init`) is process 1 inside: it mounts, makes certificates and
// configuration, starts the components, and tells the world how it goes in one status file. When it dies, the kernel
// ends all processes, mounts and interfaces of the cluster with it.
package supervisor

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
)

// Version of Kubernetes; the same text is in go.mod and in the link flags that `kubectl version` reads.
const Version = "v1.34.4"

// Settings are what the launcher is told, on standard input, and what it tells the supervisor.
type Settings struct {
	Name      string            `json:"name"`
	State     string            `json:"state"`     // kept across restarts and reboots
	Run       string            `json:"run"`       // sockets, lock and status; short, as socket paths are limited
	Programs  map[string]string `json:"programs"`  // name to path
	Simulated int               `json:"simulated"` // how many nodes that do not exist
	Network   Network           `json:"network"`
	Resolvers []string          `json:"resolvers"` // the host's name servers
	Search    []string          `json:"search"`
}

// id tells this cluster from all others on the machine; the same name may be in use from another home directory.
func (s Settings) id() string { return filepath.Base(s.Run) }

// Node is the name of the cluster's only node, and the host name inside.
func (s Settings) Node() string {
	if s.Name == "default" {
		return "devenv"
	}
	return "devenv-" + s.Name
}

// Context is the name of the kubeconfig's only context.
func (s Settings) Context() string {
	if s.Name == "default" {
		return "embedded"
	}
	return "embedded-" + s.Name
}

func (s Settings) state(parts ...string) string {
	return filepath.Join(append([]string{s.State}, parts...)...)
}
func (s Settings) run(parts ...string) string {
	return filepath.Join(append([]string{s.Run}, parts...)...)
}

func (s Settings) kubeconfig() string     { return s.state("kubeconfig") }
func (s Settings) socket() string         { return s.run("containerd.sock") }
func (s Settings) log(part string) string { return s.state("logs", part+".log") }
func (s Settings) etc(parts ...string) string {
	return filepath.Join(append([]string{s.State, "etc"}, parts...)...)
}
func (s Settings) pki(parts ...string) string {
	return filepath.Join(append([]string{s.State, "pki"}, parts...)...)
}

// cgroup is the name of our own cgroup, below the root of every hierarchy.
func (s Settings) cgroup() string { return "devenv-" + s.id() }

// link is the host's end of the network; the kernel allows 15 characters.
func (s Settings) link() string {
	hash := fnv.New32a()
	hash.Write([]byte(s.id()))
	return fmt.Sprintf("devenv%08x", hash.Sum32())
}

func readJSON(path string, into any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, value any) error {
	text, err := json.MarshalIndent(value, "", " ")
	if err != nil {
		return err
	}
	return writeFile(path, text, 0o600)
}

// writeFile replaces the file as a whole: a reader sees the old text or the new one.
func writeFile(path string, text []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	part := path + ".part"
	if err := os.WriteFile(part, text, mode); err != nil {
		return err
	}
	return os.Rename(part, path)
}
