// Package provisioner makes `local` volumes out of directories, one for each claim, and deletes them with it.
// Unlike hostPath, a local volume takes a pod's fsGroup, so that a PostgreSQL that is not root can write to it.
package provisioner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	core "k8s.io/api/core/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/sig-storage-lib-external-provisioner/v13/controller"
)

// Name is what a StorageClass calls us.
const Name = "devenv.local/directory"

type directories struct {
	root string
	node string
}

// Run serves claims until the context ends.
func Run(ctx context.Context, client kubernetes.Interface, root, node string) {
	controller.NewProvisionController(ctx, client, Name, &directories{root, node},
		controller.LeaderElection(false),
		controller.MetricsPort(0),
		controller.ResyncPeriod(10*time.Minute),
	).Run(ctx)
}

// Provision makes the directory. Anyone inside the pod may write; the parent directory keeps the host's users out.
func (d *directories) Provision(
	_ context.Context, options controller.ProvisionOptions,
) (*core.PersistentVolume, controller.ProvisioningState, error) {
	claim := options.PVC
	if mode := claim.Spec.VolumeMode; mode != nil && *mode == core.PersistentVolumeBlock {
		return nil, controller.ProvisioningFinished, errors.New("block volumes are not supported, only file systems")
	}
	path := filepath.Join(d.root, options.PVName)
	if err := os.MkdirAll(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	if err := os.Chmod(path, 0o777); err != nil {
		return nil, controller.ProvisioningFinished, err
	}
	volume := &core.PersistentVolume{
		ObjectMeta: meta.ObjectMeta{Name: options.PVName},
		Spec: core.PersistentVolumeSpec{
			PersistentVolumeReclaimPolicy: *options.StorageClass.ReclaimPolicy,
			AccessModes:                   claim.Spec.AccessModes,
			MountOptions:                  options.StorageClass.MountOptions,
			Capacity:                      core.ResourceList{core.ResourceStorage: claim.Spec.Resources.Requests[core.ResourceStorage]},
			PersistentVolumeSource:        core.PersistentVolumeSource{Local: &core.LocalVolumeSource{Path: path}},
			NodeAffinity: &core.VolumeNodeAffinity{Required: &core.NodeSelector{NodeSelectorTerms: []core.NodeSelectorTerm{{
				MatchExpressions: []core.NodeSelectorRequirement{{
					Key: core.LabelHostname, Operator: core.NodeSelectorOpIn, Values: []string{d.node},
				}},
			}}}},
		},
	}
	return volume, controller.ProvisioningFinished, nil
}

// Delete removes the directory with all that is in it.
func (d *directories) Delete(_ context.Context, volume *core.PersistentVolume) error {
	path, err := d.owned(volume)
	if err != nil {
		return err
	}
	return os.RemoveAll(path)
}

// owned is the volume's directory, if it is one that Provision would have made.
func (d *directories) owned(volume *core.PersistentVolume) (string, error) {
	if volume.Spec.Local == nil || volume.Spec.Local.Path != filepath.Join(d.root, volume.Name) {
		return "", fmt.Errorf("volume %s is not a directory below %s: not deleted", volume.Name, d.root)
	}
	return volume.Spec.Local.Path, nil
}
