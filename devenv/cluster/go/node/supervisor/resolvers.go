package supervisor

import (
	"net/netip"
	"os"
	"strings"
)

// systemd-resolved's stub listens on the host's loopback, where we cannot reach it; this file has what is behind it.
const behindStub = "/run/systemd/resolve/resolv.conf"

// hostResolvers are the name servers that can be reached from another network namespace, and the search domains.
func hostResolvers() (servers, search []string) {
	for _, path := range []string{"/etc/resolv.conf", behindStub} {
		text, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if servers, search = parseResolvers(string(text)); len(servers) > 0 {
			return servers, search
		}
	}
	return nil, search
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
