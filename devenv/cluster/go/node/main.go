// Command devenv-node is a whole Kubernetes node in one file. Its first argument says which part it plays:
// a component of Kubernetes, the name server, our own controllers, or the supervisor of them all.
//
//	up      reads supervisor.Settings (JSON) from standard input and starts the supervisor in namespaces of its own
//	init    the supervisor itself, process 1 of those namespaces (started by up only)
//	down    ends the supervisor that `--run DIR` belongs to and removes what it left on the host
package main

import (
	"context"
	"fmt"
	"os"

	_ "github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/forward"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
	proxy "k8s.io/kubernetes/cmd/kube-proxy/app"
	scheduler "k8s.io/kubernetes/cmd/kube-scheduler/app"
	kubelet "k8s.io/kubernetes/cmd/kubelet/app"

	"devenv/node/controllers"
	_ "devenv/node/quiet"
	"devenv/node/supervisor"
)

var parts = map[string]func(args []string) error{
	"etcd":                    func(args []string) error { etcdmain.Main(append([]string{"etcd"}, args...)); return nil },
	"kube-apiserver":          command(apiserver.NewAPIServerCommand),
	"kube-controller-manager": command(controllermanager.NewControllerManagerCommand),
	"kube-scheduler":          command(func() *cobra.Command { return scheduler.NewSchedulerCommand() }),
	"kubelet":                 command(func() *cobra.Command { return kubelet.NewKubeletCommand(context.Background()) }),
	"kube-proxy":              command(proxy.NewProxyCommand),
	"coredns":                 coredns,
	"controllers":             controllers.Run,
	"up":                      supervisor.Up,
	"init":                    supervisor.Init,
	"down":                    supervisor.Down,
}

func main() {
	if len(os.Args) < 2 || parts[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "devenv-node: the first argument names the part to play, as in `devenv-node kubelet --help`")
		os.Exit(2)
	}
	if err := parts[os.Args[1]](os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func command(make func() *cobra.Command) func([]string) error {
	return func(args []string) error {
		cmd := make()
		cmd.SetArgs(args)
		os.Exit(cli.Run(cmd))
		return nil
	}
}

// coredns reads its arguments from os.Args by itself.
func coredns(args []string) error {
	os.Args = append([]string{"coredns"}, args...)
	coremain.Run()
	return nil
}
