package supervisor

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// resolverFiles are read until one names a server that we can reach. A stub that listens on the host's loopback (that of
// systemd-resolved, or NetworkManager's) is out of our reach; the files after the first name what is behind it.
var resolverFiles = []string{
	"/etc/resolv.conf", "/run/systemd/resolve/resolv.conf",
	"/run/NetworkManager/no-stub-resolv.conf", "/run/NetworkManager/resolv.conf",
}

// hostResolvers are the name servers that can be reached from another network namespace, and the search domains.
func hostResolvers(read func(string) ([]byte, error)) (servers, search []string) {
	for _, path := range resolverFiles {
		text, err := read(path)
		if err != nil {
			continue
		}
		if servers, search = parseResolvers(string(text)); len(servers) > 0 {
			return servers, search
		}
	}
	return nil, search
}

// readOnHost reads files below the host's /run, which is hidden from us, through the handle kept of it.
func readOnHost(run *os.Root) func(string) ([]byte, error) {
	return func(path string) ([]byte, error) {
		if target, err := os.Readlink(path); err == nil { // to below /run, absolute or relative to /etc
			path = filepath.Join("/etc", target)
			if filepath.IsAbs(target) {
				path = target
			}
		}
		if below, ok := strings.CutPrefix(path, "/run/"); ok {
			return run.ReadFile(below)
		}
		return os.ReadFile(path)
	}
}

// followResolvers passes the host's name servers on when they change, as they do when a laptop moves.
func followResolvers(s Settings, run *os.Root, b *board, stop <-chan struct{}) {
	for pause(stop, 5*time.Second) {
		servers, search := hostResolvers(readOnHost(run))
		if len(servers) == 0 || (slices.Equal(servers, s.Resolvers) && slices.Equal(search, s.Search)) {
			continue
		}
		say("the host's name servers are now %s", strings.Join(servers, " "))
		s.Resolvers, s.Search = servers, search
		for path, text := range map[string]string{s.etc("resolv.conf"): s.resolvConf(), s.etc("Corefile"): corefile(s)} {
			if err := writeFile(path, []byte(text), 0o644); err != nil {
				say("%v", err)
			}
		}
		signalParts(b, syscall.SIGUSR1, []string{"coredns"}) // reads its file anew and drops no question
	}
}

func parseResolvers(text string) (servers, search []string) {
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		switch words[0] {
		case "nameserver":
			address, err := netip.ParseAddr(words[1])
			if err == nil && address.Is4() && !address.IsLoopback() {
				servers = append(servers, words[1])
			}
		case "search", "domain":
			search = words[1:]
		}
	}
	return servers, search
}

// resolvConf is the file as the kubelet and containerd read it.
func (s Settings) resolvConf() string {
	var text strings.Builder
	for _, server := range s.Resolvers {
		text.WriteString("nameserver " + server + "\n")
	}
	if len(s.Search) > 0 {
		text.WriteString("search " + strings.Join(s.Search, " ") + "\n")
	}
	return text.String()
}
