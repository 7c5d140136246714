package policy

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// The network plugins keep what they gave to each pod below this directory, before any of its containers starts. The
// API hears of a new pod's address only about a second later, when the pod may have talked to others already.
const results = "/var/lib/cni/results"

type result struct {
	Args   [][2]string `json:"cniArgs"`
	Result struct {
		IPs []struct {
			Address netip.Prefix `json:"address"`
		} `json:"ips"`
	} `json:"result"`
}

// early tells of each address as it is given, and of those that were given before; it returns when it cannot go on.
func early(dir string, given func(pod, address string)) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer watcher.Close()
	if err := watcher.Add(dir); err != nil {
		return err
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err
	}
	for _, file := range files {
		tell(file, given)
	}
	for {
		select {
		case event := <-watcher.Events:
			if event.Has(fsnotify.Write) {
				tell(event.Name, given)
			}
		case err := <-watcher.Errors:
			return err
		}
	}
}

// tell reads one file. Half a file is no JSON yet, and another write follows.
func tell(file string, given func(pod, address string)) {
	text, err := os.ReadFile(file)
	if err != nil {
		return
	}
	var r result
	if json.Unmarshal(text, &r) != nil || len(r.Result.IPs) == 0 {
		return
	}
	words := map[string]string{}
	for _, pair := range r.Args {
		words[pair[0]] = pair[1]
	}
	if words["K8S_POD_NAME"] == "" || strings.HasSuffix(file, "-lo") {
		return
	}
	given(words["K8S_POD_NAMESPACE"]+"/"+words["K8S_POD_NAME"], r.Result.IPs[0].Address.Addr().String())
}
