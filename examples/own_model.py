"""Your own model, protected in ten lines: python examples/own_model.py (5,000 real digits, no download, seconds).

Replace `model` and `data` by yours. A Model takes images in [0, 1] and normalises them itself.
"""

import torch

import noiseopt

data = noiseopt.data.split(noiseopt.data.load("mnist-mini"), seed=0)
model = torch.nn.Sequential(  # any nn.Module
    noiseopt.models.Normalize(0.13, 0.31),
    torch.nn.Conv2d(1, 16, 5, stride=2),
    torch.nn.ReLU(),
    torch.nn.Flatten(),
    torch.nn.Linear(16 * 12 * 12, 10),
)
images, labels, _ = data.train.batch(torch.arange(2))

net = noiseopt.inject(model, example_input=images, where="all", sigma="learned", init=0.5)
weights, sigmas = noiseopt.split_parameters(net)
optimizer, sigma_optimizer = torch.optim.Adam(weights, lr=1e-3), noiseopt.SigmaAdam(sigmas, lr=1e-3)
for _epoch in range(10):
    for index in torch.randperm(len(data.train)).split(128):
        images, labels, _ = data.train.batch(index)
        torch.nn.functional.cross_entropy(net(images), labels).backward()
        for o in (optimizer, sigma_optimizer):
            o.step()
            o.zero_grad()

attack = noiseopt.attacks.PGD(eps=25 / 255, step_size=5 / 255, steps=10, draws=20)
for name, perturbation in {"clean": noiseopt.clean, "PGD, EOT over 20 draws": attack}.items():
    for on in (True, False):
        record = noiseopt.evaluate(net, data.test, perturbation, noise=on)
        print(f"{name}, noise {'on' if on else 'off'}: {record.describe()}")
print({name: f"mean σ {s.mean():.3f}" for name, s in noiseopt.sigmas(net).items()})
