package supervisor

import (
	"os/exec"
	"strings"
)

// Docker lets nothing pass through a host but its own packets (`-P FORWARD DROP`), and leaves the chain DOCKER-USER to
// others. Without a word there, our pods would reach the host and nothing beyond it.
const (
	forwardChain = "FORWARD"
	dockerChain  = "DOCKER-USER"
)

// passFirewall lets our packets through where the host drops what it does not know. Where that fails, all but the way
// out works, so it is no reason to fail.
func passFirewall(s Settings) {
	chain := forwardChain
	if rules, err := iptables("-S"); err != nil || !strings.Contains(rules, "-P "+forwardChain+" DROP") {
		return
	} else if strings.Contains(rules, "-N "+dockerChain) {
		chain = dockerChain
	}
	for _, rule := range firewallRules(s) {
		_, _ = iptables(append([]string{"-I", chain}, rule...)...)
	}
}

// leaveFirewall removes our rules, however many there are.
func leaveFirewall(s Settings) {
	rules, err := iptables("-S")
	if err != nil || !strings.Contains(rules, s.link()) {
		return
	}
	for line := range strings.Lines(rules) {
		if words := strings.Fields(line); len(words) > 2 && words[0] == "-A" && strings.Contains(line, " "+s.link()+" ") {
			words[0] = "-D"
			_, _ = iptables(words...)
		}
	}
}

func firewallRules(s Settings) [][]string {
	return [][]string{{"-i", s.link(), "-j", "ACCEPT"}, {"-o", s.link(), "-j", "ACCEPT"}}
}

// iptables fails where there is none; then nobody set up rules with it either.
func iptables(words ...string) (string, error) {
	output, err := exec.Command("iptables", append([]string{"-w", "5"}, words...)...).Output()
	return string(output), err
}
